"""The Docker engine, by its command line."""

from __future__ import annotations

import functools
import json
import os
import subprocess
from typing import Any

#: The label of everything that these tests create on the engine, with the process id of the tests as its value.
LABEL = "headrace.chart-test"


class EngineError(AssertionError):
    """A command of the engine failed; the message has its standard error."""


def docker(*arguments: str, stdin: bytes | None = None, timeout: float = 120) -> str:
    """Run a command of the engine; return its standard output. Raises EngineError when it fails."""
    completed = subprocess.run(["docker", *arguments], input=stdin, capture_output=True, timeout=timeout)
    if completed.returncode != 0:
        raise EngineError(f"docker {' '.join(arguments[:4])} ...: {completed.stderr.decode(errors='replace')}")
    return completed.stdout.decode(errors="replace").strip()


def is_running() -> bool:
    try:
        return subprocess.run(["docker", "info"], capture_output=True, timeout=30).returncode == 0
    except FileNotFoundError:
        return False


def labels() -> list[str]:
    """Return the options that mark an object as one of this process's tests."""
    return ["--label", f"{LABEL}={os.getpid()}"]


def inspect(container: str) -> dict[str, Any]:
    (description,) = json.loads(docker("inspect", container))
    return dict(description)


@functools.cache
def processors() -> int:
    """Return the number of processors of the engine; it refuses a limit above it."""
    return int(docker("info", "--format", "{{.NCPU}}"))


@functools.cache
def image_user(image: str) -> str:
    """Return the user of an image; an empty text is root. Raises EngineError for an image that is not there."""
    return docker("image", "inspect", "--format", "{{.Config.User}}", image)


def start_sandbox(name: str, image: str, network: str, *options: str) -> str:
    """Start a container that does nothing, and holds the network and the volumes of others. Return its address."""
    docker(
        *("run", "--detach", "--name", name, "--hostname", name, "--network", network, *labels()),
        *("--user", "0", "--no-healthcheck", *options, "--entrypoint", "sleep", image, "infinity"),
    )
    (attached,) = inspect(name)["NetworkSettings"]["Networks"].values()
    return str(attached["IPAddress"])


def remove_all() -> None:
    """Remove the containers, volumes and networks that this process's tests have created."""
    matching = ("--quiet", "--filter", f"label={LABEL}={os.getpid()}")
    if containers := docker("ps", "--all", *matching).split():
        docker("rm", "--force", "--volumes", *containers)
    if volumes := docker("volume", "ls", *matching).split():
        docker("volume", "rm", "--force", *volumes)
    if networks := docker("network", "ls", *matching).split():
        docker("network", "rm", *networks)
