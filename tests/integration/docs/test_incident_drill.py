"""The incident of docs/production/incidents.md: a version fails, is rolled back, and its jobs are replayed."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from headrace import Client, JobFailed
from headrace_worker.local.embedded_redis import EmbeddedRedis
from headrace_worker.local.stack import start_flower, start_worker
from headrace_worker.packaging.package import package
from headrace_worker.store.store import Store
from tests.support import ROOT
from tests.support.connections import free_port
from tests.support.sentry_endpoint import Sentry
from tests.support.waiting import wait_until

ALERTS, PAGE = ROOT / "deploy" / "prometheus" / "alerts.yml", ROOT / "docs" / "production" / "incidents.md"
TIMEOUT = 30.0
JOB = r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"
YOUNG, OLD = {"age": 41}, {"age": 97}


class Stage:
    """Redis, a worker with metrics and Sentry, Flower, and an operator who runs commands."""

    def __init__(self, url: str, folder: Path, sentry: Sentry, metrics: int, flower: int) -> None:
        self.url, self.folder, self.sentry = url, folder, sentry
        self._metrics, self._flower = metrics, flower
        #: The commands of the operator, with JOB in place of ids.
        self.commands: list[list[str]] = []

    def operator(self, *arguments: str) -> str:
        """Run a command of `headrace`; return its standard output and standard error."""
        completed = subprocess.run(
            [sys.executable, "-m", "headrace.cli", *arguments],
            env={**os.environ, "HEADRACE_REDIS_URL": self.url, "HEADRACE_MODELS": str(self.folder / "models")},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert completed.returncode == 0, completed.stderr
        self.commands.append([re.sub(JOB, "JOB", argument) for argument in arguments])
        return completed.stdout + completed.stderr

    def jobs_total(self) -> dict[tuple[str, str], float]:
        """Scrape the worker; return `headrace_jobs_total` by version and state."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self._metrics}/metrics", timeout=5) as reply:
            families = text_string_to_metric_families(reply.read().decode())
        return {
            (sample.labels["version"], sample.labels["state"]): sample.value
            for family in families
            for sample in family.samples
            if sample.name == "headrace_jobs_total" and sample.labels["model"] == "churn"
        }

    def flower(self, path: str) -> Any:
        """Return a page of Flower, as JSON."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self._flower}/api/{path}", timeout=20) as reply:
            return json.load(reply)


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    store, example = Store(tmp_path / "models"), tmp_path / "example.json"
    example.write_text(json.dumps([{"age": age} for age in (18, 41, 80)]))
    for factory in ("Churn", "FaultyChurn"):
        package(store, f"tests.support.drill_models:{factory}", name="churn", example=example)
    metrics, flower, sentry = free_port(), free_port(), Sentry()
    try:
        with EmbeddedRedis("--appendfsync", "no") as redis:
            stage = Stage(redis.url, tmp_path, sentry, metrics, flower)
            stage.operator("models", "promote", "churn", "1", "--force")
            stage.commands.clear()
            worker = start_worker(
                redis.url,
                store.path,
                tmp_path,
                HEADRACE_TRUST_MODULES="tests.support.drill_models",
                HEADRACE_METRICS_PORT=str(metrics),
                SENTRY_DSN=sentry.dsn,
                PYTHONPATH=str(ROOT),
            )
            try:
                flower_process = start_flower(redis.url, tmp_path, port=flower)
                try:
                    yield stage
                finally:
                    flower_process.stop()
            finally:
                worker.stop()
    finally:
        sentry.stop()


def group_key(event: dict[str, Any]) -> str:
    """Return the key by which Sentry groups events: the fingerprint, the errors and the frames of their stacks."""
    errors = [
        (error["type"], [(frame["module"], frame["function"]) for frame in error["stacktrace"]["frames"]])
        for error in event.get("exception", {"values": []})["values"]
    ]
    return json.dumps([event.get("fingerprint"), errors])


def alert_fires(folder: Path, *scrapes: dict[tuple[str, str], float]) -> bool:
    """Ask promtool if HeadraceModelFails fires for version 2 after these scrapes, each held for five minutes."""
    series = []
    for version, state in {key for scrape in scrapes for key in scrape}:
        values = " ".join(f"{scrape.get((version, state), 0):g}x4" for scrape in scrapes)
        name = f'headrace_jobs_total{{model="churn",version="{version}",state="{state}"}}'
        series.append({"series": name, "values": values})
    alert = 'alertname="HeadraceModelFails",alertstate="firing"'
    firing = {"labels": f'ALERTS{{{alert},model="churn",version="2",severity="critical"}}', "value": 1}
    query = {"expr": f"ALERTS{{{alert}}}", "eval_time": f"{5 * len(scrapes) - 2}m"}
    for expected in ([firing], []):
        test = {"interval": "1m", "input_series": series, "promql_expr_test": [{**query, "exp_samples": expected}]}
        file = folder / "drill.yml"
        file.write_text(json.dumps({"rule_files": [str(ALERTS)], "evaluation_interval": "1m", "tests": [test]}))
        if not subprocess.run(
            ["promtool", "test", "rules", str(file)], capture_output=True, timeout=60
        ).returncode:
            return bool(expected)
    raise AssertionError("promtool accepts neither expectation")


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool comes with Prometheus")
def test_a_failing_version_is_reported_everywhere_rolled_back_and_its_jobs_replayed(stage: Stage) -> None:
    with Client(stage.url) as client:
        jobs = client.submit_many("churn", [YOUNG, OLD] * 50)
        assert {job.result(timeout=TIMEOUT).version for job in jobs} == {"1"}
        before = stage.jobs_total()
        assert not alert_fires(stage.folder, before, before)

        # A new version is promoted. It predicts its example correctly, and fails for other instances.
        stage.operator("models", "promote", "churn", "2", "--reason", "the relaunch")
        wait_until(lambda: client.predict("churn", YOUNG, timeout=TIMEOUT).version == "2")
        jobs = client.submit_many("churn", [YOUNG, OLD] * 20)
        failed = set()
        for job in jobs:
            try:
                assert job.result(timeout=TIMEOUT).version == "2"
            except JobFailed:
                failed.add(job.id)
        assert len(failed) == 20

        # The metrics count the failures, and the alert fires.
        wait_until(lambda: stage.jobs_total().get(("2", "failure")) == 20)
        during = stage.jobs_total()
        assert alert_fires(stage.folder, before, during)
        # Sentry has one issue.
        event = stage.sentry.wait("event", lambda event: "headrace.job" in event.get("tags", {}))
        assert event["tags"]["headrace.version"] == "2"
        assert len(set(map(group_key, stage.sentry.events))) == 1
        # Flower shows the dead letters.
        assert {letter["id"] for letter in stage.flower("dead-letters")["dead_letters"]} == failed
        # `headrace dead` shows the error, without the values of the instance.
        assert re.search(r"20  churn@2  permanent  KeyError", stage.operator("dead", "list", "--model", "churn"))
        details = stage.operator("dead", "show", min(failed))
        assert "KeyError" in details
        assert re.search(r"\b97\b", details) is None  # digits of an id are no value

        # The operator rolls back, and replays the dead letters to the version in production.
        assert "churn@1" in stage.operator("models", "rollback", "churn", "--reason", "KeyError: segment")
        stage.operator("dead", "replay", "--model", "churn", "--version", "1", "--yes")
        for job in map(client.job, failed):
            wait_until(lambda job=job: job.status() == "success")
            assert job.result(timeout=TIMEOUT).version == "1"

        # Recovered: no dead letter remains, new jobs succeed, the alert ends.
        assert stage.flower("dead-letters")["dead_letters"] == []
        assert "no dead letters" in stage.operator("dead", "list", "--model", "churn")
        wait_until(lambda: client.predict("churn", YOUNG, timeout=TIMEOUT).version == "1")
        assert client.predict("churn", OLD, timeout=TIMEOUT).version == "1"
        assert not alert_fires(stage.folder, before, during, after := stage.jobs_total(), after)
        assert "replayed by" in stage.operator("explain", min(failed))

    # The page lists the same commands.
    documented = re.findall(r"^\$ operator (.+)$", PAGE.read_text(), re.MULTILINE)
    assert stage.commands == [shlex.split(re.sub(JOB, "JOB", line)) for line in documented]
