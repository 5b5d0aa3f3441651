"""Run kombu's tests of its Redis transport, and Celery's tests of tasks and canvas, with Headrace's transport.

`make compat` runs them, and beside them the suite `clients`: real Celery clients send jobs to a Headrace worker
(`test_clients`, which needs npm). The other tests come from PyPI, from the source distributions of the installed
versions. `in_place` replaces kombu's transport, and expects the tests of `exceptions` to fail;
docs/reference/transport.md explains them. All files are in .compat/.

`make compat ARGS=...` takes names of suites, to run these alone; `--stock`, to run with kombu's own transport,
which shows whose fault a failure is; and options of pytest.
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
#: The packages that these tests import beside those of Headrace's tests.
EXTRA = ["pytest-rerunfailures", "pytest-freezer", "freezegun", "pytest-subtests", "python-dateutil", "six"]
#: The packages of kombu's further serializers and compressions, for the suite `clients`.
CODECS = ["msgpack", "brotli", "backports.zstd"]
CLIENTS = "clients"

#: By the name of a suite: the distribution, and its tests. The unit tests leave mocks behind, so they run apart.
SUITES = {
    "kombu-unit": ("kombu", ["t/unit/transport/test_redis.py", "t/unit/transport/virtual"]),
    "kombu": ("kombu", ["t/integration/test_redis.py", "t/integration/test_redis_brpop_qos.py"]),
    "celery-tasks": ("celery", ["t/integration/test_tasks.py"]),
    "celery-canvas": ("celery", ["t/integration/test_canvas.py"]),
    "canvas-of-jobs": ("celery", ["t/integration/test_canvas.py"]),
}


def fetch(name: str) -> Path:
    """Return the folder of an installed distribution's source, after it is downloaded and unpacked."""
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


def run(suite: str, redis: EmbeddedRedis, options: list[str], *, stock: bool) -> int:
    """Run a suite on an embedded Redis. Return the exit code of pytest."""
    name, tests = SUITES[suite]
    environ = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(HERE), str(FOLDER / "extra"), "."]),
        "REDIS_HOST": "127.0.0.1",
        "REDIS_PORT": str(redis.port),
        "REDIS_6379_TCP": str(redis.port),
        "WORKER_LOGLEVEL": "INFO",  # some tests read the log
        # The first database for both: some tests read it themselves.
        "TEST_BROKER": f"redis://127.0.0.1:{redis.port}/0",
        "TEST_BACKEND": f"redis://127.0.0.1:{redis.port}/0",
    }
    names = ["no:in_place" if stock or suite == "canvas-of-jobs" else "in_place", "no:randomly"]
    names += ["as_jobs"] if suite == "canvas-of-jobs" and not stock else []
    names += ["celery.contrib.pytest" if name == "celery" else "no:celery"]
    plugins = [argument for plugin in names for argument in ("-p", plugin)]
    # Some tests of Celery wait two to three minutes, to see that nothing happens.
    limits = ["--timeout", "400", "--reruns", "1"]
    command = [sys.executable, "-m", "pytest", *tests, *plugins, *limits, "-q", "-W", "ignore", *options]
    return subprocess.run(command, cwd=fetch(name), env=environ, check=False).returncode


def run_clients(options: list[str]) -> int:
    """Run the tests of real clients. Return the exit code of pytest."""
    codecs = FOLDER / "codecs"
    if not codecs.exists():
        pip("install", "--no-deps", "--target", str(codecs), *CODECS)
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join([str(codecs), "."])}
    command = [sys.executable, "-m", "pytest", "-q", "-m", "long", str(HERE / "test_clients.py"), *options]
    return subprocess.run(command, env=environ, check=False).returncode


def main() -> int:
    """Run the suites. Return 0 if all tests pass but the exceptions."""
    FOLDER.mkdir(exist_ok=True)
    if not (FOLDER / "extra").exists():
        pip("install", "--no-deps", "--target", str(FOLDER / "extra"), *EXTRA)
    names = {*SUITES, CLIENTS}
    suites = [argument for argument in sys.argv[1:] if argument in names] or [*SUITES, CLIENTS]
    options = [argument for argument in sys.argv[1:] if argument not in {*names, "--stock"}]
    stock = "--stock" in sys.argv[1:]
    with EmbeddedRedis("--appendfsync", "no") as redis:
        return max(
            run_clients(options) if name == CLIENTS else run(name, redis, options, stock=stock) for name in suites
        )


if __name__ == "__main__":
    sys.exit(main())
