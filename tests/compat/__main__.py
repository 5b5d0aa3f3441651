"""Run kombu's own tests of its Redis transport, and Celery's of tasks and canvas, with our transport in place.

`make compat`. The tests come from the source distributions of the versions that are installed, on PyPI; none of
their code is kept here. `in_place` puts our transport in the place of kombu's, and marks the exceptions of
`exceptions` as expected to fail; docs/reference/transport.md explains them. Everything lies in .compat/.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
from importlib.metadata import version
from pathlib import Path

from headrace_worker.embedded import EmbeddedRedis

HERE = Path(__file__).parent
FOLDER = Path(".compat").resolve()
#: What their tests import, and ours do not have.
EXTRA = ["pytest-rerunfailures", "pytest-freezer", "freezegun", "pytest-subtests", "python-dateutil", "six"]

#: Suite: distribution, and the tests of it to run. The unit tests leave mocks behind, so they run apart.
SUITES = {
    "kombu-unit": ("kombu", ["t/unit/transport/test_redis.py", "t/unit/transport/virtual"]),
    "kombu": ("kombu", ["t/integration/test_redis.py", "t/integration/test_redis_brpop_qos.py"]),
    "celery-tasks": ("celery", ["t/integration/test_tasks.py"]),
    "celery-canvas": ("celery", ["t/integration/test_canvas.py"]),
}


def fetch(name: str) -> Path:
    """The unpacked source distribution of what is installed."""
    stem = f"{name}-{version(name)}"
    if not (FOLDER / stem).exists():
        archive = FOLDER / f"{stem}.tar.gz"
        if not archive.exists():
            pip("download", "--no-deps", "--no-binary", ":all:", "--dest", str(FOLDER), f"{name}=={version(name)}")
        with tarfile.open(archive) as packed:
            packed.extractall(FOLDER, filter="data")
    return FOLDER / stem


def pip(*arguments: str) -> None:
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments]
    subprocess.run(command, check=True)


def run(name: str, tests: list[str], redis: EmbeddedRedis, more: list[str]) -> int:
    """Their tests against a Redis of ours; the exit code of pytest."""
    environ = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(HERE), str(FOLDER / "extra"), "."]),
        "REDIS_HOST": "127.0.0.1",
        "REDIS_PORT": str(redis.port),
        "REDIS_6379_TCP": str(redis.port),
        "TEST_BROKER": f"redis://127.0.0.1:{redis.port}/1",
        "TEST_BACKEND": f"redis://127.0.0.1:{redis.port}/2",
    }
    plugins = [
        "-p",
        "in_place",
        "-p",
        "no:randomly",
        "-p",
        "celery.contrib.pytest" if name == "celery" else "no:celery",
    ]
    command = [sys.executable, "-m", "pytest", *tests, *plugins, "-q", "--timeout", "120", "--reruns", "1", *more]
    return subprocess.run([*command, "-W", "ignore"], cwd=fetch(name), env=environ, check=False).returncode


def main() -> int:
    """0 when everything passes that is not an exception."""
    FOLDER.mkdir(exist_ok=True)
    if not (FOLDER / "extra").exists():
        pip("install", "--no-deps", "--target", str(FOLDER / "extra"), *EXTRA)
    asked = [argument for argument in sys.argv[1:] if argument in SUITES]
    more = [argument for argument in sys.argv[1:] if argument not in SUITES]
    with EmbeddedRedis("--appendfsync", "no") as redis:
        return max(run(*SUITES[name], redis, more) for name in asked or SUITES)


if __name__ == "__main__":
    sys.exit(main())
