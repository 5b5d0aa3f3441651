"""The commands of the chart's containers run in their order, as the documented users of a real Redis.

The processes run on this machine with the arguments and variables of the rendered pods, but for paths and ports.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis

from headrace import Client
from headrace_worker.store.store import Store
from tests.chart.helm import Object, pod_templates, render
from tests.support.acl import users
from tests.support.connections import free_port, running_server
from tests.support.constant_models import add_constant
from tests.support.redis_servers import find_server
from tests.support.waiting import wait_until
from tests.support.webhooks import OK, Answer, Receiver, endpoint

pytestmark = pytest.mark.long

VALUES = {
    "models": {"claim": "models"},
    "workers": {"default": {"serve": ["churn"], "concurrency": 1, "memory": "4Gi"}},
    "gateway": {"enabled": True},
    "notifier": {"enabled": True},
    "test": {"model": "churn", "instances": "[[1.0]]"},
}


class Site:
    """A Redis with the users of the documentation, a store, and the containers of a rendered chart by name."""

    def __init__(self, folder: Path, port: int) -> None:
        self._folder, self._port = folder, port
        self._containers: dict[str, tuple[Object, Object]] = {
            container["name"]: (pod, container)
            for pod in pod_templates(render(VALUES)).values()
            for container in pod["spec"]["containers"]
        }

    def set_option(self, name: str, value: str) -> None:
        """Change the configuration of Redis."""
        with redis.Redis(port=self._port, username="admin", password="admin") as admin:
            admin.config_set(name, value)

    def url(self, user: str) -> str:
        """Return the URL of Redis for one of its users."""
        return f"redis://{user}:{user.upper()}-PASSWORD@127.0.0.1:{self._port}/0"

    def run(self, name: str) -> subprocess.CompletedProcess[str]:
        """Run a container to its end."""
        command, environ = self._prepare(name)
        return subprocess.run(command, env=environ, cwd=self._folder, capture_output=True, text=True, timeout=150)

    @contextmanager
    def running(self, name: str) -> Iterator[str]:
        """Run a container while the block runs; yield the address of its port."""
        command, environ = self._prepare(name)
        port = environ["HEADRACE_METRICS_PORT"]
        with (
            (self._folder / f"{name}.log").open("wb") as log,
            subprocess.Popen(command, env=environ, cwd=self._folder, stderr=log) as process,
        ):
            try:
                yield f"http://127.0.0.1:{port}"
            finally:
                process.terminate()

    def _prepare(self, name: str) -> tuple[list[str], dict[str, str]]:
        pod, container = self._containers[name]
        port = str(free_port())
        environ = {item["name"]: item["value"] for item in container["env"]}
        environ |= {
            "PATH": os.environ["PATH"],
            "HOME": str(self._folder),
            "HEADRACE_REDIS_URL_FILE": str(self._write_url(pod, container)),
            "HEADRACE_METRICS_PORT": port,
            "HEADRACE_GATEWAY_METRICS_PORT": port,
            "HEADRACE_GATEWAY_PORT": str(free_port()),
            "HEADRACE_NOTIFY_METRICS_PORT": port,
        }
        if "HEADRACE_NOTIFY" in environ:
            environ["HEADRACE_NOTIFY"] = str(self._folder / Path(environ["HEADRACE_NOTIFY"]).name)
        if "HEADRACE_MODELS" in environ:
            environ["HEADRACE_MODELS"] = str(self._folder / "models")
        arguments = [f"--port={port}" if item.startswith("--port=") else item for item in container["args"]]
        return [sys.executable, "-m", "headrace.cli", *arguments], environ

    def _write_url(self, pod: Object, container: Object) -> Path:
        (volume,) = [mount["name"] for mount in container["volumeMounts"] if mount["mountPath"] == "/run/secrets"]
        (source,) = [item["projected"]["sources"] for item in pod["spec"]["volumes"] if item["name"] == volume]
        user = source[0]["secret"]["items"][0]["key"].removesuffix(".url")
        file = self._folder / f"{user}.url"
        file.write_text(self.url(user))
        return file


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    port = free_port()
    (tmp_path / "users.acl").write_text("\n".join([*users(), "user admin on >admin ~* &* +@all", ""]))
    options = ["--port", str(port), "--bind", "127.0.0.1", "--appendonly", "yes", "--aclfile", "users.acl"]
    admin = redis.Redis(port=port, username="admin", password="admin")
    store = Store(tmp_path / "models")
    add_constant(store, tmp_path, "churn", 7.0)
    with running_server([find_server("path"), *options], tmp_path, "redis", admin):
        yield Site(tmp_path, port)


def read(address: str) -> str:
    """Return a page, or "" while it is not served or not well."""
    try:
        with urllib.request.urlopen(address, timeout=5) as answer:
            return str(answer.read().decode())
    except urllib.error.URLError:
        return ""


def test_the_commands_of_a_release_work_in_their_order(site: Site):
    functions = site.run("functions")
    assert functions.returncode == 0, functions.stderr
    publish = site.run("publish")
    assert (publish.returncode, publish.stdout) == (0, "churn@1  published\n"), publish.stderr
    with site.running("exporter") as exporter:
        page = wait_until(lambda: read(f"{exporter}/metrics"), seconds=90)
        assert 'headrace_class_backlog{class="default"} 0.0' in page
    with site.running("worker") as worker:
        wait_until(lambda: read(f"{worker}/ready"), seconds=90, describe=lambda: read(f"{worker}/live"))
        doctor = site.run("doctor")
        assert doctor.returncode == 0, doctor.stderr + doctor.stdout
        job = site.run("job")
        assert job.returncode == 0, job.stderr
        assert json.loads(job.stdout.splitlines()[-1]) == 7.0


def test_the_gateway_of_a_release_is_live_and_ready_as_its_redis_user(site: Site):
    assert site.run("functions").returncode == 0
    with site.running("gateway") as gateway:
        wait_until(lambda: read(f"{gateway}/live"), seconds=90)
        wait_until(lambda: read(f"{gateway}/ready"), seconds=90)
        assert "headrace_gateway_waiting 0.0" in read(f"{gateway}/metrics")


def test_a_notifier_of_a_release_tells_how_a_job_ended_as_its_redis_user(site: Site, tmp_path: Path):
    assert site.run("functions").returncode == 0
    with Receiver(lambda _, before: OK if before else Answer(503)) as receiver:
        (tmp_path / "notify").write_text(endpoint(receiver.url))
        with site.running("notifier") as notifier, site.running("worker") as worker:
            wait_until(lambda: read(f"{notifier}/live"), seconds=90)
            wait_until(lambda: read(f"{notifier}/ready"), seconds=90)
            wait_until(lambda: read(f"{worker}/ready"), seconds=90, describe=lambda: read(f"{worker}/live"))
            with Client(site.url("producer"), check=False) as client:
                client.submit("churn", instances=[[1.0]], id="told", notify="orders")
            wait_until(lambda: len(receiver.requests) == 2, seconds=60)
            page = read(f"{notifier}/metrics")
        assert receiver.requests[-1].verify()["data"]["id"] == "told"
        assert 'headrace_notify_attempts_total{endpoint="orders",result="http-503"} 1.0\n' in page


def test_the_test_of_a_release_fails_where_redis_forgets(site: Site):
    assert site.run("functions").returncode == 0
    site.set_option("appendonly", "no")
    doctor = site.run("doctor")
    assert doctor.returncode == 1
    assert "appendonly is no, should be yes" in doctor.stdout
