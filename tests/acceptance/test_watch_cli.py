"""`headrace exporter` and `headrace health`, run as processes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from headrace import Client
from headrace_worker.local.embedded_redis import EmbeddedRedis
from headrace_worker.store.store import Store
from headrace_worker.telemetry.health import Health, HealthFile
from tests.support import ROOT
from tests.support.command import headrace
from tests.support.constant_models import add_constant
from tests.support.keda import read_value
from tests.support.silent_redis import stopped
from tests.support.waiting import wait_until

CAPACITY = ROOT / "docs" / "production" / "capacity.md"


def test_the_exporter_prints_its_address_and_serves_metrics(redis_url: str) -> None:
    command = [sys.executable, "-m", "headrace.cli", "exporter", "--url", redis_url, "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as exporter:
        try:
            assert exporter.stderr is not None
            address = exporter.stderr.readline().split()[-1]
            with urllib.request.urlopen(address, timeout=10) as reply:
                assert "headrace_redis_up 1.0" in reply.read().decode()
            port = address.rsplit(":", 1)[1].split("/")[0]
            second = subprocess.run([*command[:-1], port], capture_output=True, text=True, timeout=60, check=False)
            assert (second.returncode, second.stdout) == (1, "")
            assert second.stderr.startswith(
                f"headrace: cannot listen on 127.0.0.1, port {port}: Address already in"
            )
        finally:
            exporter.terminate()


@contextmanager
def exporting(redis_url: str, *command: str, **environ: str) -> Iterator[str]:
    """Run `headrace exporter` with these words; yield the address of its page."""
    arguments = [sys.executable, "-m", "headrace.cli", *command, "--url", redis_url, "--port", "0"]
    with subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True, env={**os.environ, **environ}) as exporter:
        try:
            assert exporter.stderr is not None
            yield next(line for line in exporter.stderr if line.startswith("metrics on")).split()[-1]
        finally:
            exporter.terminate()


def read_page(address: str) -> str:
    with urllib.request.urlopen(address, timeout=10) as reply:
        return str(reply.read().decode())


def test_the_exporter_shows_the_models_and_classes_that_it_is_told_of_on_a_fresh_redis(
    redis_url: str, tmp_path: Path
) -> None:
    add_constant(Store(tmp_path / "models"), tmp_path, "stored", 1.0)
    (documented,) = re.findall(r"^headrace (exporter .*)$", CAPACITY.read_text(), re.MULTILINE)
    with exporting(redis_url, *documented.split(), HEADRACE_MODELS=str(tmp_path / "models")) as address:
        with Client(redis_url, check=False) as client:
            client.submit("tumour", [1.0])
        page = read_page(address)
    for model, jobs in {"churn": 0, "stored": 0, "prices": 0, "tumour": 1}.items():
        assert read_value(page, f'headrace_backlog{{model="{model}"}}') == jobs
    assert read_value(page, 'headrace_class_backlog{class="forest"}') == 1
    assert read_value(page, 'headrace_class_backlog{class="default"}') == 1


def test_the_exporter_shows_the_models_that_workers_are_told_to_serve(redis_url: str) -> None:
    with exporting(redis_url, "exporter", HEADRACE_SERVE="churn,fraud") as address:
        page = read_page(address)
    assert [read_value(page, f'headrace_backlog{{model="{model}"}}') for model in ("churn", "fraud")] == [0, 0]


def test_the_exporter_tells_of_a_silent_redis_before_a_scrape_is_given_up() -> None:
    with EmbeddedRedis() as server, exporting(server.url, "exporter", HEADRACE_SERVE="churn") as address:
        assert "headrace_backlog" in read_page(address)
        with stopped(server.url):
            page = read_page(address)  # within Prometheus's 10 s
            assert "headrace_redis_up 0.0" in page
            assert "headrace_backlog" not in page
        assert wait_until(lambda: "headrace_backlog" in read_page(address))


def test_the_exporter_refuses_a_class_without_a_form(redis_url: str) -> None:
    for option, words in (("forest", "is not NAME=MODEL,MODEL"), ("forest=a b", "a model's name is 1 to 64")):
        refused = headrace("exporter", "--url", redis_url, "--port", "0", "--class", option)
        assert refused.returncode == 2
        assert words in refused.stderr


def test_health_reports_by_its_exit_code(tmp_path: Path) -> None:
    def health(*options: str, file: str = str(tmp_path / "health")) -> tuple[int, str]:
        command = [sys.executable, "-m", "headrace.cli", "health", *options]
        environ = {"HEADRACE_HEALTH_FILE": file} if file else {}
        ran = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60, check=False)
        return ran.returncode, ran.stdout + ran.stderr

    assert health(file="") == (
        1,
        "headrace: set HEADRACE_HEALTH_FILE, for the worker too: it writes its state to that file\n",
    )
    assert health()[0] == 1
    file = HealthFile(str(tmp_path / "health"), Health())
    file.start()
    assert health() == (0, "the worker starts: its models are being loaded\n")
    assert health("--ready") == (1, "headrace: the worker starts: its models are being loaded\n")
    file.remove()
