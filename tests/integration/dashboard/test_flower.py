"""Flower shows each job's model, version and state, and the queues, but no inputs and no predictions."""

from __future__ import annotations

import html
import json
import os
import re
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from headrace import Client, JobFailed
from headrace.connection.celery import create_celery_app
from headrace.settings import Settings
from headrace_worker.local.embedded_redis import EmbeddedRedis
from headrace_worker.local.stack import Child, start_flower, start_worker
from headrace_worker.store.store import Store
from tests.support import ROOT, hostile_models
from tests.support.waiting import wait_until

SECRET_TEXT, SECRET_NUMBER = "Rumpelstiltskin", 47118.15


class Dashboard(NamedTuple):
    """A running Flower with a worker."""

    redis: str
    url: str
    log: Path

    def get(self, path: str) -> str:
        with urllib.request.urlopen(self.url + path, timeout=20) as response:
            body: bytes = response.read()
        return body.decode()


@pytest.fixture(scope="module")
def dashboard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dashboard]:
    folder = tmp_path_factory.mktemp("stack")
    hostile_models.add(Store(folder / "models"))
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    children: list[Child] = []
    with EmbeddedRedis("--appendfsync", "no") as redis:
        try:
            # Flower starts first: it shows only the events it has received.
            children.append(start_flower(redis.url, folder, port=port))
            children.append(
                start_worker(redis.url, folder / "models", folder, concurrency=1, **hostile_models.SERVING)
            )
            dashboard = Dashboard(redis.url, f"http://127.0.0.1:{port}", folder / "flower.log")
            wait_until_events_arrive(dashboard)
            yield dashboard
        finally:
            for child in reversed(children):
                child.stop()


def wait_until_events_arrive(dashboard: Dashboard) -> None:
    """Wait until Flower receives events; it answers requests a moment earlier."""
    with Client(dashboard.redis) as client:

        def event_arrives() -> bool:
            job = client.submit("obedient", hostile_models.instance())
            job.result(timeout=20)
            return bool(task_info(dashboard, job.id, seconds=1))

        wait_until(event_arrives, seconds=30)


def task_info(dashboard: Dashboard, job: str, *, seconds: float) -> dict[str, Any]:
    """Return Flower's record of a finished job; {} if there is none after `seconds`."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            info: dict[str, Any] = json.loads(dashboard.get(f"/api/task/info/{job}"))
        except urllib.error.HTTPError as error:
            if error.code != 404:
                raise
            time.sleep(0.1)
            continue
        if info["state"] not in {"RECEIVED", "STARTED"}:
            return info
        time.sleep(0.1)
    return {}


@pytest.fixture
def client(dashboard: Dashboard) -> Iterator[Client]:
    with Client(dashboard.redis, check=False) as client:
        yield client


def run_job(client: Client, *, do: str = "predict", **options: Any) -> str:
    """Run a job and return its id."""
    job = client.submit("obedient", hostile_models.instance(do, secret=SECRET_TEXT, size=SECRET_NUMBER), **options)
    job.outcome(timeout=20)
    return job.id


def test_a_job_is_shown_with_its_model_version_state_and_time(dashboard: Dashboard, client: Client):
    info = task_info(dashboard, run_job(client, version="1"), seconds=20)
    assert info["name"] == "headrace.predict"
    assert info["state"] == "SUCCESS"
    assert info["args"] == "obedient@1, 1 instance"
    assert info["result"] == "obedient@1, 1 instance"
    assert info["received"] <= info["started"] <= info["succeeded"]
    assert abs(info["succeeded"] - time.time()) < 60
    assert info["worker"].startswith("worker@")


def test_the_charts_of_the_last_hour_are_read_as_json(dashboard: Dashboard, client: Client):
    task_info(dashboard, run_job(client), seconds=20)
    task_info(dashboard, run_job(client, do="raise"), seconds=20)
    page = json.loads(dashboard.get("/api/charts?model=obedient"))
    assert [(chart["model"], chart["version"]) for chart in page["charts"]] == [
        ("obedient", None),
        ("obedient", "1"),
    ]
    assert page["start"] % 60 == 0
    assert 59 * 60 <= time.time() - page["start"] < 62 * 60
    for chart in page["charts"]:
        assert {len(values) for values in chart["series"].values()} == {page["minutes"]}
        assert sum(chart["series"]["failed"]) >= 1
        assert max(filter(None, chart["series"]["wait_p95"])) > 0
    assert json.loads(dashboard.get("/api/charts?model=none"))["charts"] == []


def test_a_failed_job_is_shown_with_its_error(dashboard: Dashboard, client: Client):
    info = task_info(dashboard, run_job(client, do="raise"), seconds=20)
    assert (info["state"], info["args"]) == ("FAILURE", "obedient, 1 instance")
    assert info["version"] == "1"
    assert info["runtime"] > 0
    assert info["exception"].startswith("ValueError: no prediction for {'do':")
    assert "in _execute" in info["traceback"]


def test_a_job_with_invalid_input_is_shown(dashboard: Dashboard, client: Client):
    with pytest.raises(JobFailed):
        client.predict("obedient", [SECRET_TEXT], timeout=20, id="no-object")
    info = task_info(dashboard, "no-object", seconds=20)
    assert (info["name"], info["state"]) == ("headrace.predict", "FAILURE")


def test_a_message_without_instances_is_shown(dashboard: Dashboard):
    app = create_celery_app(Settings(redis_url=dashboard.redis))
    result = app.send_task("headrace.predict", args=[SECRET_TEXT], queue="predict.obedient")
    with pytest.raises(Exception, match="a job's arguments are"):
        result.get(timeout=20)
    app.close()
    info = task_info(dashboard, result.id, seconds=20)
    assert (info["name"], info["state"]) == ("headrace.predict", "FAILURE")


def test_the_addresses_of_the_page_answer_without_a_login_and_only_to_this_site(
    dashboard: Dashboard, client: Client
):
    job, dead = run_job(client), run_job(client, do="raise")
    wait_until(lambda: task_info(dashboard, job, seconds=1))
    documented = re.findall(r"`(/api/[^`]+)`", (ROOT / "docs/how-to/watch-with-flower.md").read_text())
    assert "/api/tasks" in documented
    for path in documented:
        address = path.replace("/dead-letters/JOB", f"/dead-letters/{dead}")
        address = address.replace("JOB", job).replace("MODEL", "obedient")
        if "NAME" not in address and "NUMBER" not in address:  # there is no run and no replay
            with urllib.request.urlopen(dashboard.url + address, timeout=20) as response:
                assert "Access-Control-Allow-Origin" not in response.headers
                json.loads(response.read())


@pytest.mark.parametrize("path", ["worker/shutdown/w", "task/revoke/a", "task/send-task/headrace.predict"])
def test_the_addresses_that_act_do_not_answer_without_a_login(dashboard: Dashboard, path: str):
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(f"{dashboard.url}/api/{path}", data=b"{}", timeout=20)
    assert refused.value.code in {401, 403}
    refused.value.close()


def test_every_job_of_a_batch_is_shown(dashboard: Dashboard, client: Client):
    jobs = client.submit_many("obedient", [hostile_models.instance()] * 300)
    for job in jobs:
        job.result(timeout=20)
    listed = wait_until(
        lambda: (
            (all_ := json.loads(dashboard.get("/api/tasks?limit=10000"))).keys() >= {job.id for job in jobs}
            and all_
        )
    )
    wait_until(lambda: task_info(dashboard, jobs[-1].id, seconds=1))
    assert {listed[job.id]["name"] for job in jobs} == {"headrace.predict"}


def test_no_value_of_an_instance_is_shown_or_logged(dashboard: Dashboard, client: Client):
    for do in ("predict", "raise", "raise from", "eat memory"):
        job = run_job(client, do=do, metadata={"who": SECRET_TEXT})
        task_info(dashboard, job, seconds=20)
        pages = [dashboard.get(f"/task/{job}"), dashboard.get(f"/api/task/info/{job}")]
        pages += [dashboard.get("/api/tasks?limit=10000"), dashboard.log.read_text()]
        for page in pages:
            assert SECRET_TEXT not in page
            assert "47118" not in page
            assert str(2 * SECRET_NUMBER) not in page


def test_the_workers_and_their_queues_are_shown(dashboard: Dashboard):
    # Flower gives the workers one second to answer.
    workers = wait_until(lambda: json.loads(dashboard.get("/api/workers?refresh=1")))
    [worker] = workers.values()
    assert [queue["name"] for queue in worker["active_queues"]] == ["predict.obedient"]
    # The page itself, not only the API.
    assert "worker@" in dashboard.get("/workers")


def test_the_queues_page_takes_the_place_of_the_broker_page(dashboard: Dashboard):
    page = html.unescape(dashboard.get("/broker"))
    assert re.search(r"predict\.<wbr>obedient</div></td>\s*<td[^>]*>0</td>", page), page
    assert ">Broker<" not in page


def test_the_tasks_page_in_a_browser(dashboard: Dashboard, client: Client, tmp_path: Path):
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    if browser is None:
        pytest.skip("no chromium on PATH")
    job = run_job(client, version="1")
    task_info(dashboard, job, seconds=20)
    document = subprocess.run(
        [
            *(browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"),
            *(
                f"--user-data-dir={tmp_path}",
                "--window-size=1400,900",
                "--virtual-time-budget=10000",
                "--dump-dom",
                f"{dashboard.url}/tasks",
            ),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "HOME": str(tmp_path)},
    ).stdout
    row = re.search(rf"<tr[^>]*>(?:(?!</tr>).)*{job}.*?</tr>", document, re.DOTALL)
    assert row, document[:2000]
    cells = [re.sub(r"<[^>]+>", "", cell).strip() for cell in re.findall(r"<td.*?</td>", row[0])]
    assert cells[1:6] == ["obedient", "1", "1", "SUCCESS", "1"]


def test_flower_listens_on_loopback_only(dashboard: Dashboard):
    port = int(dashboard.url.rpartition(":")[2])
    listening = [line.split()[1] for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    assert f"0100007F:{port:04X}" in listening
    assert f"00000000:{port:04X}" not in listening
