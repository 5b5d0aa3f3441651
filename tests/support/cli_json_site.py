"""Runs every command that has `--json`, on a real Redis with a real worker, and returns what they print."""

from __future__ import annotations

import json
import threading
from collections import defaultdict
from pathlib import Path
from typing import Any

import skops.io
from celery import Celery

from headrace import Client
from headrace_worker.local.demo_models import churn
from headrace_worker.local.embedded_redis import EmbeddedRedis
from headrace_worker.local.stack import start_worker
from tests.support.command import headrace
from tests.support.waiting import wait_until

GOLD = '{"age": 41, "plan": "gold"}'
#: Rows of the file that `batch` and `bulk` predict. The age of the last is a text.
CUSTOMERS = "age,plan\n41,gold\n23,basic\nold,gold\n"


class CliSite:
    """A Redis, a folder with files and a model store, and the objects that commands printed so far."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url, self.folder = url, folder
        #: The objects that each command printed, by its name, such as `dead list`.
        self.printed: dict[str, list[Any]] = defaultdict(list)

    def run(self, command: str, *arguments: str, code: int = 0) -> list[Any]:
        """Run a command with `--json`. Return its objects, and keep them."""
        ran = self.call(*command.split(), *arguments, "--json", code=code)
        objects = [json.loads(line) for line in ran.splitlines()]
        self.printed[command] += objects
        return objects

    def call(self, *arguments: str, code: int = 0) -> str:
        """Run a command; return its standard output. It fails if the exit code is another."""
        ran = headrace(*arguments, cwd=self.folder, HEADRACE_REDIS_URL=self.url)
        if ran.returncode != code:
            raise AssertionError(f"headrace {' '.join(arguments)}: exit code {ran.returncode}\n{ran.stderr}")
        return ran.stdout


def run_all_commands(folder: Path) -> dict[str, list[Any]]:
    """Run every command with `--json` in an empty folder; return the objects of each by its name."""
    with EmbeddedRedis("--appendfsync", "no") as server:
        site = CliSite(server.url, folder)
        _write_files(folder)
        _package_models(site)
        _prepare_redis(site)
        _submit_without_worker(site)
        locations = f"in={folder / 'in'}:r,out={folder / 'out'}:rw"
        worker = start_worker(server.url, folder / "models", folder, concurrency=1, HEADRACE_LOCATIONS=locations)
        try:
            _roll_out(site)
            _predict(site)
            _handle_dead_letters(site)
            _run_in_bulk(site)
            _watch(site)
        finally:
            worker.stop()
    return dict(site.printed)


def _write_files(folder: Path) -> None:
    trained = churn()
    skops.io.dump(trained.estimator, folder / "churn.skops")
    trained.unseen[:3].to_json(folder / "example.json", orient="records")
    trained.unseen.to_csv(folder / "sample.csv", index=False)
    for name in ("in", "out"):
        (folder / name).mkdir()
    (folder / "in" / "customers.csv").write_text(CUSTOMERS)


def _package_models(site: CliSite) -> None:
    model = ("churn.skops", "--name", "churn", "--example", "example.json", "--runtime", "sklearn")
    site.run("models add", *model, "--profile", "sample.csv")
    site.run("models add", *model, "--profile", "sample.csv", "--method", "predict_proba")
    site.run("models list")
    site.run("models show", "churn@1")
    site.run("models verify", "churn")
    site.run("models diff", "churn", "1", "2")
    site.run("models gc", "--keep", "1", "--dry-run")
    site.run("models publish")


def _prepare_redis(site: CliSite) -> None:
    site.run("redis install")
    site.call("keys", "add", "billing", "--models", "churn", "--rate", "50/s")
    site.call("keys", "add", "orders")
    site.run("keys list")


def _submit_without_worker(site: CliSite) -> None:
    site.run("submit", "churn", GOLD, "--id", "order-1")
    site.run("submit", "churn", GOLD, "--id", "order-2", "--delay", "600", "--meta", "by=billing")
    site.run("status", "order-1", "order-2", "order-3")
    site.run("explain", "order-1", "order-2")
    site.run("explain", "order-3", code=1)
    site.run("cancel", "order-1")
    site.run("cancel", "order-1", "order-3", code=1)
    site.call("queues", "pause", "churn", "--reason", "a bad column")
    site.run("queues")
    site.run("plan", "--arrivals", "200", "--rate", "50", "--model", "churn")
    site.call("queues", "resume", "churn")
    site.run("queues")
    site.run("queues purge", "churn", "--yes")


def _roll_out(site: CliSite) -> None:
    site.run("models promote", "churn", "1", "--reason", "the first", "--force")
    site.run("models promote", "churn", "2", "--canary", "10%", "--force")
    site.run("models aliases", "churn")
    site.run("models rollback", "churn", "--alias", "canary", "--reason", "slower")
    site.run("models promote", "churn", "2", "--shadow", "--force")
    site.run("models history", "churn")


def _predict(site: CliSite) -> None:
    site.run("submit", "churn", GOLD, "--id", "order-4", "--wait", "--timeout", "60")
    site.run("submit", "churn", GOLD, "--id", "order-5", "--method", "predict_proba", "--timeout", "60")
    # The producer would refuse the instance; a plain Celery client has no contract.
    with Celery(broker=site.url, backend=site.url) as app:
        instances = [{"age": "old", "plan": "gold"}]
        app.send_task("headrace.predict", args=["churn", instances], queue="predict.churn", task_id="bad")
    with Client(site.url) as client:
        client.job("bad").outcome(timeout=60)
    site.run("result", "order-4", "order-5", "bad", "order-1", "--timeout", "60", code=3)
    site.run("explain", "order-4", "bad")
    site.run("batch", "churn", "in/customers.csv", "-o", "out.csv", code=3)
    site.run("models compare", "churn")
    site.run("models drift", "churn")


def _handle_dead_letters(site: CliSite) -> None:
    site.run("dead list")
    site.run("dead list", "--all")
    site.run("dead show", "bad")
    site.run("dead show", "bad", "--payload")
    site.run("dead replay", "bad", "--dry-run")
    site.run("dead replay", "bad", "missing", code=1)
    with Client(site.url) as client:
        wait_until(lambda: client.job("bad").status() == "failure", 60)
    site.run("explain", "bad")
    site.run("dead show", "bad")  # with the replay among its attempts
    site.run("dead purge", "--all", "--yes")


def _run_in_bulk(site: CliSite) -> None:
    site.run("bulk submit", "churn", "in:customers.csv", "-o", "out:scores", "--name", "nightly", "--keep", "age")
    site.run("bulk wait", "nightly", "--timeout", "60", code=3)
    site.run("bulk status", "nightly")
    site.run("bulk failures", "nightly")
    site.run("bulk resume", "nightly")
    site.run("bulk cancel", "nightly", code=1)
    site.run("bulk list")
    site.run(
        "bulk submit", "churn", "in:missing.csv", "-o", "out:other", "--name", "other", "--timeout", "60", code=3
    )
    site.run("explain", "nightly")


def _watch(site: CliSite) -> None:
    site.run("plan", "--measure", "0.5s")
    _watch_jobs(site)
    site.run("doctor", code=1)  # this Redis does not write each job to its disk


def _watch_jobs(site: CliSite) -> None:
    """Run `top` while jobs succeed and fail, until it shows them and the worker."""
    stopped = threading.Event()

    def submit() -> None:
        with Client(site.url, check=False) as client:
            while not stopped.wait(0.1):
                client.submit_many("churn", [{"age": 41, "plan": "gold"}, {"age": "old", "plan": "gold"}])

    def see_all() -> bool:
        del site.printed["top"]
        (page,) = site.run("top", "--once", "--every", "3")
        return all(page[name] for name in ("models", "workers", "errors"))

    site.printed["top"] = []
    thread = threading.Thread(target=submit)
    thread.start()
    try:
        wait_until(see_all, 120)
    finally:
        stopped.set()
        thread.join()
