"""The stack of docker-compose.yml, built and run for real: a CSV predicted from outside it.

    make deploy-test

Needs a Docker engine, and `docker compose` or `docker-compose`. Takes everything down again, whatever happens.
"""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from palmerpenguins import load_penguins
from sklearn.compose import make_column_selector, make_column_transformer
from sklearn.ensemble import RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder
from skops import io as skops

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]

ROOT = Path(__file__).parents[2]

#: Only for this test: build where containers have no network of their own; Flower on any free port.
OVERRIDE = """
services:
  worker: { build: { network: host } }
  flower: { build: { network: host } }
  headrace: { build: { network: host } }
"""


class Stack:
    """One run of the compose file, under a project name of its own."""

    def __init__(self, models: Path, override: Path) -> None:
        self.models = models
        self._project = f"headrace-test-{os.getpid()}"
        one_word = shutil.which("docker-compose")
        self._compose = [one_word] if one_word else ["docker", "compose"]
        self._compose += ["-p", self._project, "-f", str(ROOT / "docker-compose.yml"), "-f", str(override)]
        # The classic builder knows `network: host` without an entitlement.
        self._environ = {**os.environ, "HEADRACE_MODELS": str(models), "FLOWER_PORT": "0", "DOCKER_BUILDKIT": "0"}

    def __call__(self, *words: str, timeout: float = 120, **more: Any) -> subprocess.CompletedProcess[str]:
        command = [*self._compose, *words]
        done = subprocess.run(command, env=self._environ, capture_output=True, text=True, timeout=timeout, **more)
        if done.returncode not in (0, 3):
            pytest.fail(
                f"{' '.join(words)} exited with {done.returncode}:\n{done.stdout}\n{done.stderr}\n{self.logs()}"
            )
        return done

    def headrace(self, *words: str, **more: Any) -> str:
        """The command line in its own container; returns its stdout."""
        return self("run", "--rm", "-T", "headrace", *words, **more).stdout

    def workers(self) -> list[str]:
        return self("ps", "-q", "worker").stdout.split()

    def healthy(self) -> int:
        inspect = ["docker", "inspect", "-f", "{{.State.Health.Status}}", *self.workers()]
        return subprocess.run(inspect, capture_output=True, text=True).stdout.split().count("healthy")

    def serving(self, title: str) -> int:
        return self("logs", "--no-color", "worker").stdout.count(f"serving {title}")

    def logs(self) -> str:
        logs = subprocess.run(
            [*self._compose, "logs", "--tail", "40"], env=self._environ, capture_output=True, text=True
        )
        return logs.stdout


def wait_for(what: str, is_so: Callable[[], bool], stack: Stack, seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while not is_so():
        if time.monotonic() > deadline:
            pytest.fail(f"{what}: not within {seconds} s\n{stack.logs()}")
        time.sleep(0.5)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Redis, two workers without any model yet, and Flower."""
    if shutil.which("docker") is None or subprocess.run(["docker", "info"], capture_output=True).returncode != 0:
        pytest.fail("no Docker engine runs here; this test is the one that needs it")
    folder = tmp_path_factory.mktemp("stack")
    models = folder / "models"
    models.mkdir()
    for path in (folder, models):
        path.chmod(0o755)  # pytest's folders are their owner's alone, the containers' user is another
    (folder / "override.yml").write_text(OVERRIDE)
    stack = Stack(models, folder / "override.yml")
    try:
        stack("--profile", "tools", "build", timeout=600)
        stack("up", "-d", "--scale", "worker=2", timeout=180)
        wait_for("two workers are ready", lambda: stack.healthy() == 2, stack)
        yield stack
    finally:
        subprocess.run(
            [*stack._compose, "down", "-v", "--remove-orphans"], env=stack._environ, timeout=180, check=True
        )


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    """Penguins: names and numbers, some missing."""
    return load_penguins().drop(columns=["species", "year"])


@pytest.fixture(scope="module")
def model(stack: Stack, table: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    """A pipeline over mixed and missing values, trained here, and added while the workers run."""
    folder = tmp_path_factory.mktemp("training")
    names = make_pipeline(SimpleImputer(strategy="most_frequent"), OneHotEncoder(handle_unknown="ignore"))
    columns = make_column_transformer(
        (SimpleImputer(), make_column_selector(dtype_include="number")),
        (names, make_column_selector(dtype_exclude="number")),
    )
    fitted = make_pipeline(columns, RandomForestClassifier(n_estimators=20, random_state=0))
    fitted.fit(table, load_penguins()["species"])
    skops.dump(fitted, folder / "penguins.skops")
    table.dropna().head(3).to_json(folder / "example.json", orient="records")
    add = ["models", "add", str(folder / "penguins.skops"), "--name", "penguins"]
    add += ["--example", str(folder / "example.json")]
    environ = {**os.environ, "HEADRACE_MODELS": str(stack.models)}
    subprocess.run([sys.executable, "-m", "headrace.cli", *add], env=environ, check=True, timeout=120)
    wait_for("both workers serve the model added", lambda: stack.serving("penguins@1") == 2, stack)
    return fitted


def test_a_csv_is_predicted_from_outside_the_stack(stack: Stack, model: Pipeline, table: pd.DataFrame):
    rows = pd.concat([table] * 10, ignore_index=True)
    predicted = stack.headrace(
        "batch", "penguins", "-", "-o", "-", "--format", "csv", input=rows.to_csv(index=False)
    )
    answers = [row["prediction"] for row in csv.DictReader(io.StringIO(predicted))]
    assert answers == list(model.predict(rows))


def test_both_workers_take_part(stack: Stack, model: Pipeline, table: pd.DataFrame):
    def has_run_jobs(container: str) -> bool:
        name = f"celery@{container[:12]}"
        ask = ["celery", "-A", "headrace_worker", "inspect", "stats", "--json", "--timeout", "20", "-d", name]
        told = subprocess.run(["docker", "exec", container, *ask], capture_output=True, text=True, timeout=60)
        return bool(json.loads(told.stdout)[name]["total"]) if told.returncode == 0 else False

    rows = pd.concat([table] * 5, ignore_index=True).to_csv(index=False)

    def both() -> bool:
        stack.headrace("batch", "penguins", "-", "-o", "-", "--format", "csv", input=rows)
        return all(has_run_jobs(container) for container in stack.workers())

    assert len(stack.workers()) == 2
    wait_for("both workers ran jobs", both, stack)


def test_flower_shows_both_workers_on_loopback(stack: Stack):
    address = stack("port", "flower", "5555").stdout.strip()
    assert address.startswith("127.0.0.1:")

    def shown() -> set[str]:
        try:
            with urllib.request.urlopen(f"http://{address}/workers?json=1", timeout=5) as answer:
                return {worker["hostname"].partition("@")[2] for worker in json.load(answer)["data"]}
        except OSError:
            return set()

    workers = {container[:12] for container in stack.workers()}
    wait_for("Flower shows both workers", lambda: shown() == workers, stack)


def test_redis_is_reached_by_nobody_outside_the_stack(stack: Stack):
    redis = stack("ps", "-q", "redis").stdout.strip()
    assert subprocess.run(["docker", "port", redis], capture_output=True, text=True).stdout == ""


def test_the_containers_run_without_root_and_cannot_write_to_the_models(stack: Stack):
    for container in stack.workers():
        tried = subprocess.run(
            ["docker", "exec", container, "sh", "-c", "id -u; touch /models/mine"], capture_output=True, text=True
        )
        assert tried.stdout.strip() == "10001"
        assert tried.returncode != 0
