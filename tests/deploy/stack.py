"""A clone of the project with the stack of its docker-compose.yml, started by the commands of its README."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from base64 import b64encode
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
LOAD = Path(__file__).with_name("load.py")

#: An instance of `churn`.
PENGUIN = {
    "island": "Biscoe",
    "bill_length_mm": 46.1,
    "bill_depth_mm": 13.2,
    "flipper_length_mm": 211.0,
    "body_mass_g": 4500.0,
    "sex": "female",
}

#: Builds with the host's network, for machines whose containers have none during a build.
OVERRIDE = """
services:
  worker: { build: { network: host } }
  flower: { build: { network: host } }
  gateway: { build: { network: host } }
  headrace: { build: { network: host } }
"""


#: The command docker-compose of the README, for machines that have only Compose 2.
COMPOSE_2 = """#!/bin/sh
exec docker compose "$@"
"""


class Stack:
    """A run of the compose file in a clone, with its own project name and ports."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        tools = [str(Path(sys.executable).parent)]
        if not shutil.which("docker-compose"):
            (folder / "bin").mkdir()
            (folder / "bin" / "docker-compose").write_text(COMPOSE_2)
            (folder / "bin" / "docker-compose").chmod(0o755)
            tools.append(str(folder / "bin"))
        self.http, self.https = _free_port(), _free_port()
        self._environ = {
            **os.environ,
            "PATH": ":".join([*tools, os.environ["PATH"]]),
            "COMPOSE_FILE": "docker-compose.yml:override.yml",
            "COMPOSE_PROJECT_NAME": f"headrace-test-{os.getpid()}",
            "HTTP_PORT": str(self.http),
            "HTTPS_PORT": str(self.https),
            "DOCKER_BUILDKIT": "0",  # the classic builder knows `network: host` without an entitlement
        }

    def clone(self) -> None:
        """Copy the files of the working tree that git tracks or would add."""
        command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        files = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
        for name in filter(None, files.split("\0")):
            if (ROOT / name).is_file():
                (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, self.folder / name)
        (self.folder / "override.yml").write_text(OVERRIDE)

    def __call__(self, command: str, timeout: float = 300, **options: Any) -> str:
        """Run a command in the clone; return its standard output, fail the test if it fails."""
        completed = self.run(command, timeout, **options)
        if completed.returncode != 0:
            output = f"{completed.stdout}\n{completed.stderr}\n{self.logs()}"
            pytest.fail(f"{command} exited with {completed.returncode}:\n{output}")
        return completed.stdout

    def run(self, command: str, timeout: float = 300, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run a command in the clone; `options` are those of subprocess.run, `env` adds variables."""
        environ = self._environ | options.pop("env", {})
        return subprocess.run(
            ["sh", "-c", command],
            cwd=self.folder,
            env=environ,
            capture_output=True,
            text=True,
            timeout=timeout,
            **options,
        )

    def containers(self, service: str = "") -> list[str]:
        """Return the ids of the running containers, without those that have done their work."""
        running = self("docker ps -q --no-trunc").split()
        return [name for name in self(f"docker-compose ps -q {service}").split() if name in running]

    def healthy(self, service: str = "worker") -> int:
        states = self("docker inspect -f '{{.State.Health.Status}}' " + " ".join(self.containers(service)))
        return states.split().count("healthy")

    def python(self, script: str, *arguments: str, service: str = "headrace") -> str:
        """Run a Python script in a new container of a service; return its standard output."""
        quoted = " ".join(f"'{argument}'" for argument in arguments)
        command = f"docker-compose run --rm -T --entrypoint python {service} - {quoted}"
        return self(command, input=script)

    @contextmanager
    def load(self, model: str, instance: Any, seconds: float) -> Iterator[Future[dict[str, Any]]]:
        """Submit jobs during the block; the future returns the output of load.py."""
        with ThreadPoolExecutor(1) as pool:
            yield pool.submit(
                lambda: json.loads(self.python(LOAD.read_text(), model, str(seconds), json.dumps(instance)))
            )

    def redis(self, *arguments: str) -> str:
        """Run a Redis command as administrator, in the container of Redis."""
        cli = "redis-cli --no-auth-warning --tls --cacert /run/secrets/ca --user admin"
        command = f"REDISCLI_AUTH=$(cat /run/secrets/admin) {cli} {' '.join(arguments)}"
        return self(f"docker-compose exec -T redis sh -c '{command}'")

    def get(self, path: str, *, login: bool, method: str = "GET", headers: dict[str, str] | None = None) -> int:
        """Return the status of a page over HTTPS with a verified certificate; 0 without an answer."""
        request = urllib.request.Request(
            f"https://localhost:{self.https}{path}", method=method, headers=headers or {}
        )
        if login:
            credentials = b64encode((self.folder / "secrets" / "flower.login").read_bytes()).decode()
            request.add_header("Authorization", f"Basic {credentials}")
        context = ssl.create_default_context(cafile=self.folder / "secrets" / "ca.pem")
        try:
            with urllib.request.urlopen(request, timeout=10, context=context) as response:
                return int(response.status)
        except urllib.error.HTTPError as error:
            return error.code
        except OSError:
            return 0

    def logs(self) -> str:
        return self.run("docker-compose logs --no-color --tail 40").stdout

    def wait_for(self, description: str, condition: Callable[[], bool], seconds: float = 90) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                pytest.fail(f"{description}: not within {seconds} s\n{self.logs()}")
            time.sleep(0.5)

    def down(self) -> None:
        self("docker-compose --profile trial --profile webhooks down -v --remove-orphans")


def check_all_succeeded(report: dict[str, Any]) -> None:
    """Check that every confirmed job succeeded; `report` is the output of load.py."""
    print(json.dumps(report))
    assert report["confirmed"] > 100
    assert report["outcomes"] == {"success": report["confirmed"]}


def readme_commands() -> Sequence[str]:
    """Return the commands of the README that start a secured stack; the first one clones."""
    (block,) = re.findall(
        r"^## Run it for real$.*?^```sh\n(.*?)^```", (ROOT / "README.md").read_text(), re.M | re.S
    )
    return [line.partition("  #")[0].strip() for line in str(block).splitlines()]


def blocks(page: Path) -> list[str]:
    """Return the blocks of shell commands of a page."""
    return re.findall(r"^```sh\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
