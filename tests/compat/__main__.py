"""Run kombu's own tests of its Redis transport, and Celery's of tasks and canvas, with our transport in place.

`make compat`. The tests come from the source distributions of the versions that are installed, on PyPI; none of
their code is kept here. `in_place` puts our transport in the place of kombu's, and marks the exceptions of
`exceptions` as expected to fail; docs/reference/transport.md explains them. Everything lies in .compat/.

`make compat ARGS=...`: names of suites run these alone, `--stock` leaves kombu's own transport in place, to tell
our faults from theirs, and the rest goes to pytest.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
from importlib.metadata import version
from pathlib import Path

from headrace_worker.local.embedded_redis import EmbeddedRedis

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


def run(name: str, tests: list[str], redis: EmbeddedRedis, more: list[str], *, stock: bool) -> int:
    """Their tests against a Redis of ours; the exit code of pytest."""
    environ = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(HERE), str(FOLDER / "extra"), "."]),
        "REDIS_HOST": "127.0.0.1",
        "REDIS_PORT": str(redis.port),
        "REDIS_6379_TCP": str(redis.port),
        "WORKER_LOGLEVEL": "INFO",  # some of their tests read the log
        # The first database for both: some of their tests look into it themselves.
        "TEST_BROKER": f"redis://127.0.0.1:{redis.port}/0",
        "TEST_BACKEND": f"redis://127.0.0.1:{redis.port}/0",
    }
    names = ["no:in_place" if stock else "in_place", "no:randomly"]
    names += ["celery.contrib.pytest" if name == "celery" else "no:celery"]
    plugins = [word for plugin in names for word in ("-p", plugin)]
    # Some tests of Celery's wait for what must not come: two to three minutes each.
    limits = ["--timeout", "400", "--reruns", "1"]
    command = [sys.executable, "-m", "pytest", *tests, *plugins, *limits, "-q", "-W", "ignore", *more]
    return subprocess.run(command, cwd=fetch(name), env=environ, check=False).returncode


def main() -> int:
    """0 when everything passes that is not an exception."""
    FOLDER.mkdir(exist_ok=True)
    if not (FOLDER / "extra").exists():
        pip("install", "--no-deps", "--target", str(FOLDER / "extra"), *EXTRA)
    asked = [argument for argument in sys.argv[1:] if argument in SUITES]
    more = [argument for argument in sys.argv[1:] if argument not in {*SUITES, "--stock"}]
    stock = "--stock" in sys.argv[1:]
    with EmbeddedRedis("--appendfsync", "no") as redis:
        return max(run(*SUITES[name], redis, more, stock=stock) for name in asked or SUITES)


if __name__ == "__main__":
    sys.exit(main())
