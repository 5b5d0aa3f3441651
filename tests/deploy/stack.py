"""A clone of the project, and the stack of its docker-compose.yml, started by the commands of its README."""

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

#: One instance of `churn`.
PENGUIN = {
    "island": "Biscoe",
    "bill_length_mm": 46.1,
    "bill_depth_mm": 13.2,
    "flipper_length_mm": 211.0,
    "body_mass_g": 4500.0,
    "sex": "female",
}

#: Only here: build where containers have no network of their own.
OVERRIDE = """
services:
  worker: { build: { network: host } }
  flower: { build: { network: host } }
  headrace: { build: { network: host } }
"""


#: Where only Compose v2 is installed: what the README calls docker-compose.
COMPOSE_2 = """#!/bin/sh
exec docker compose "$@"
"""


class Stack:
    """One run of the compose file in a clone, under a project name and ports of its own."""

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
        """What git knows of the project, as it is now."""
        listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        told = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True)
        for name in filter(None, told.stdout.split("\0")):
            if (ROOT / name).is_file():
                (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, self.folder / name)
        (self.folder / "override.yml").write_text(OVERRIDE)

    def __call__(self, command: str, timeout: float = 300, **more: Any) -> str:
        """Runs a command in the clone, as a person would; returns its stdout."""
        done = self.tried(command, timeout, **more)
        if done.returncode != 0:
            pytest.fail(f"{command} exited with {done.returncode}:\n{done.stdout}\n{done.stderr}\n{self.logs()}")
        return done.stdout

    def tried(self, command: str, timeout: float = 300, **more: Any) -> subprocess.CompletedProcess[str]:
        environ = self._environ | more.pop("env", {})
        return subprocess.run(
            ["sh", "-c", command],
            cwd=self.folder,
            env=environ,
            capture_output=True,
            text=True,
            timeout=timeout,
            **more,
        )

    def containers(self, service: str = "") -> list[str]:
        return self(f"docker-compose ps -q {service}").split()

    def healthy(self, service: str = "worker") -> int:
        told = self("docker inspect -f '{{.State.Health.Status}}' " + " ".join(self.containers(service)))
        return told.split().count("healthy")

    def python(self, script: str, *words: str, service: str = "headrace") -> str:
        """A script, run in a container of its own with what that service may do."""
        arguments = " ".join(f"'{word}'" for word in words)
        run = f"docker-compose run --rm -T --entrypoint python {service} - {arguments}"
        return self(run, input=script)

    @contextmanager
    def load(self, model: str, instance: Any, seconds: float) -> Iterator[Future[dict[str, Any]]]:
        """Jobs submitted one after the other meanwhile; the future tells what became of them."""
        with ThreadPoolExecutor(1) as pool:
            yield pool.submit(
                lambda: json.loads(self.python(LOAD.read_text(), model, str(seconds), json.dumps(instance)))
            )

    def redis(self, *words: str) -> str:
        """A command of the administrator's, in the container of Redis."""
        cli = "redis-cli --no-auth-warning --tls --cacert /run/secrets/ca --user admin"
        command = f"REDISCLI_AUTH=$(cat /run/secrets/admin) {cli} {' '.join(words)}"
        return self(f"docker-compose exec -T redis sh -c '{command}'")

    def get(self, path: str, *, login: bool, method: str = "GET", headers: dict[str, str] | None = None) -> int:
        """The status of a page over HTTPS, its certificate checked."""
        request = urllib.request.Request(
            f"https://localhost:{self.https}{path}", method=method, headers=headers or {}
        )
        if login:
            word = b64encode((self.folder / "secrets" / "flower.login").read_bytes()).decode()
            request.add_header("Authorization", f"Basic {word}")
        trust = ssl.create_default_context(cafile=self.folder / "secrets" / "ca.pem")
        try:
            with urllib.request.urlopen(request, timeout=10, context=trust) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code
        except OSError:
            return 0

    def logs(self) -> str:
        return self.tried("docker-compose logs --no-color --tail 40").stdout

    def wait_for(self, what: str, is_so: Callable[[], bool], seconds: float = 90) -> None:
        deadline = time.monotonic() + seconds
        while not is_so():
            if time.monotonic() > deadline:
                pytest.fail(f"{what}: not within {seconds} s\n{self.logs()}")
            time.sleep(0.5)

    def down(self) -> None:
        self("docker-compose --profile trial down -v --remove-orphans")


def all_succeeded(told: dict[str, Any]) -> None:
    """Every job whose submit returned ended well."""
    print(json.dumps(told))
    assert told["confirmed"] > 100
    assert told["ended"] == {"success": told["confirmed"]}


def readme_commands() -> Sequence[str]:
    """The commands of the README by which a secured stack comes up, the clone first."""
    (block,) = re.findall(
        r"^## Run it for real$.*?^```sh\n(.*?)^```", (ROOT / "README.md").read_text(), re.M | re.S
    )
    return [line.partition("  #")[0].strip() for line in str(block).splitlines()]


def blocks(page: Path) -> list[str]:
    """The blocks of commands on a page."""
    return re.findall(r"^```sh\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])
