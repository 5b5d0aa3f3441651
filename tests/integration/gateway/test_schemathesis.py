"""schemathesis plays requests after the gateway's own OpenAPI document, and finds nothing that contradicts it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from headrace_worker.local.embedded_redis import EmbeddedRedis
from headrace_worker.local.stack import start_worker
from headrace_worker.store.store import Store
from tests.support import ROOT
from tests.support.described_models import add_described_models
from tests.support.gateway import running_gateway


@pytest.fixture
def api(tmp_path: Path, models: tuple[str, ...]) -> Iterator[str]:
    """The URL of a gateway with a worker of `models`.

    Requests wait 2 s at most, as many jobs start late. Redis writes each job to disk, which `durable` asks for.
    """
    add_described_models(Store(tmp_path / "models"), tmp_path, models)
    waits = {"HEADRACE_GATEWAY_WAIT": "2", "HEADRACE_GATEWAY_WAIT_MAX": "2"}
    with EmbeddedRedis("--appendonly", "yes", "--appendfsync", "always") as server:
        worker = start_worker(server.url, tmp_path / "models", tmp_path, concurrency=1)
        try:
            with running_gateway(server.url, tmp_path, **waits) as gateway:
                yield gateway.url
        finally:
            worker.stop()


def play(url: str, folder: Path, *options: str) -> None:
    """Run schemathesis, and fail with what it prints if it finds a contradiction."""
    config = ROOT / "tests" / "support" / "schemathesis.toml"
    command = [str(Path(sys.executable).with_name("schemathesis")), "--config-file", str(config), "run"]
    completed = subprocess.run(
        [*command, f"{url}/openapi.json", "--no-color", *options],
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT), "HOME": str(folder), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
    )
    assert completed.returncode == 0, completed.stdout[-20_000:] + completed.stderr[-2_000:]
    assert "Stateful" in completed.stdout


@pytest.mark.parametrize("models", [("customers",)])
def test_requests_after_the_document_are_answered_as_it_says(api: str, tmp_path: Path):
    play(api, tmp_path, "--max-examples", "4", "--seed", "1")


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("models", [("customers", "grid", "texts", "words")])
def test_many_requests_after_the_document_are_answered_as_it_says(api: str, tmp_path: Path):
    play(api, tmp_path, "--max-examples", "100")
