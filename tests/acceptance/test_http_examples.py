"""The examples that call the gateway, and the commands of docs/how-to/call-over-http.md, run as they stand."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from headrace_worker.local.demo_models import add_demo_models
from headrace_worker.local.embedded_redis import EmbeddedRedis
from headrace_worker.local.stack import start_worker
from headrace_worker.store.store import Store
from tests.support import ROOT
from tests.support.gateway import running_gateway

PAGE = (ROOT / "docs" / "how-to" / "call-over-http.md").read_text(encoding="utf-8")
SHELL = re.findall(r"^```sh\n(.*?)^```", PAGE, re.M | re.S)
REFUSED = "churn@1: instance 0: feature 'age' must be a number, got a string"


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a gateway with a worker of the demonstration models."""
    folder = tmp_path_factory.mktemp("api")
    add_demo_models(Store(folder / "models"))
    with EmbeddedRedis("--appendfsync", "no") as server:
        worker = start_worker(server.url, folder / "models", folder, concurrency=1)
        try:
            with running_gateway(server.url, folder) as gateway:
                yield gateway.url
        finally:
            worker.stop()


def run(api: str, *command: str | Path) -> str:
    """Run a command with the gateway's address, and return what it prints."""
    environ = {**os.environ, "HEADRACE_API": api}
    completed = subprocess.run(list(map(str, command)), env=environ, capture_output=True, text=True, timeout=120)
    assert completed.returncode == 0, completed.stdout + completed.stderr
    return completed.stdout


def command_of(example: str) -> list[str | Path]:
    """Return the command that runs an example. Skips the test where its language is not installed."""
    if example.endswith(".py"):
        return [sys.executable, ROOT / "examples" / example]
    program, package, *arguments = {".mjs": ("node", "nodejs"), ".go": ("go", "golang-go", "run")}[
        Path(example).suffix
    ]
    if shutil.which(program) is None:
        pytest.skip(f"no {program} on PATH; on Debian: apt-get install {package}")
    return [program, *arguments, ROOT / "examples" / example]


@pytest.mark.parametrize("example", ["http_requests.py", "http_fetch.mjs", "http_client.go"])
def test_an_example_predicts_repeats_a_job_and_shows_the_error_of_a_bad_instance(api: str, example: str):
    predicted, job, repeated, refused = run(api, *command_of(example)).splitlines()
    assert re.fullmatch(r"predicted: \[[01]\]", predicted)
    assert re.fullmatch(r"job: \[[01], ?[01]\]", job)
    assert repeated.lower() == "repeated: true"
    assert refused == f"refused: {REFUSED}"


def test_the_asynchronous_example_scores_all_but_the_bad_customer(api: str):
    output = run(api, sys.executable, ROOT / "examples" / "http_httpx.py")
    assert output.splitlines() == [
        "scored: 99",
        "refused: churn@1: instance 0: feature 'plan' is missing",
    ]


def test_the_shell_example_shows_a_job_that_is_one_job_when_repeated(api: str):
    lines = run(api, "sh", ROOT / "examples" / "http.sh").splitlines()
    predicted, first, second, outcome, refused = (json.loads(line) for line in lines if line.startswith("{"))
    assert predicted["model"] == "churn"
    assert first["id"] == second["id"] == outcome["id"]
    assert len(outcome["predictions"]) == 2
    assert (refused["status"], refused["detail"]) == (422, REFUSED)


def test_the_commands_of_the_page_work_from_top_to_bottom(api: str):
    assert len(SHELL) >= 2
    script = "\n".join(SHELL).replace("http://127.0.0.1:8080", api).replace("curl ", "curl --silent --show-error ")
    answers = run(api, "sh", "-ec", script)
    assert '"predictions"' in answers
    assert "must be a number, got a string" in answers
