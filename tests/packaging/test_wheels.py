"""The built wheels, each installed in an environment of its own as a user would."""

from __future__ import annotations

import json
import os
import re
import shlex
import statistics
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]

ROOT = Path(__file__).parents[2]
LOCK = ROOT / "requirements.lock"

#: Distributions that neither the client nor the gateway may depend on, and those that the client may not.
MODELS = {
    *("flower", "headrace-worker", "joblib", "numpy", "pandas"),
    *("scikit-learn", "scipy", "sentry-sdk", "skops"),
}
HEAVY = MODELS | {"aiohttp", "headrace-gateway", "prometheus-client", "starlette", "structlog", "uvicorn"}

FOLDERS = ["producer", "worker", "gateway"]
DISTRIBUTIONS = ["headrace", "headrace-worker", "headrace-gateway"]


class Environment:
    """A fresh virtual environment and its commands."""

    def __init__(self, folder: Path) -> None:
        self.bin = folder / "bin"
        venv.create(folder, with_pip=False, symlinks=True)

    def install(self, *requirements: object) -> None:
        pip = [sys.executable, "-m", "pip", "--python", str(self.bin / "python"), "--disable-pip-version-check"]
        run(*pip, "install", "--quiet", "--constraint", LOCK, *requirements, timeout=600)

    def python(self, code: str) -> str:
        return run(self.bin / "python", "-c", code).stdout.strip()

    def headrace(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return run(self.bin / "headrace", *arguments, check=False)

    def installed(self) -> set[str]:
        code = "import json, importlib.metadata as m; print(json.dumps([d.name for d in m.distributions()]))"
        return {name.lower().replace("_", "-") for name in json.loads(self.python(code))}


def run(*command: object, check: bool = True, timeout: float = 120) -> subprocess.CompletedProcess[str]:
    """Run a command outside of the source tree, so that only installed packages can be imported."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    arguments = [str(argument) for argument in command]
    completed = subprocess.run(arguments, cwd="/", env=clean, capture_output=True, text=True, timeout=timeout)
    if check and completed.returncode != 0:
        pytest.fail(
            f"{' '.join(arguments)} exited with {completed.returncode}:\n{completed.stdout}\n{completed.stderr}"
        )
    return completed


@pytest.fixture(scope="session")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Build all wheels; return them by the name of their distribution."""
    folder = tmp_path_factory.mktemp("wheels")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "--quiet", "--no-deps"]
    run(*pip, "--wheel-dir", folder, *(ROOT / name for name in FOLDERS), timeout=300)
    return {wheel.name.split("-")[0].replace("_", "-"): wheel for wheel in folder.glob("*.whl")}


def test_the_ways_to_install_of_the_readme_find_all_that_they_need(
    wheels: dict[str, Path], tmp_path: Path
) -> None:
    lines = re.findall(r"^pip install ([^#\n]+)", (ROOT / "README.md").read_text(), re.MULTILINE)
    from_sources = [shlex.split(line) for line in lines if "./" in line]
    from_wheels = [shlex.split(line) for line in lines if "./" not in line]
    assert (len(from_sources), len(from_wheels)) == (3, 3)
    assert all(words[0] == "./producer" for words in from_sources)  # which no index has
    assert all(words[:2] == ["--find-links", "dist"] for words in from_wheels)
    # All at once, as each resolution takes seconds.
    environment = Environment(tmp_path / "environment")
    environment.install("--dry-run", *{ROOT / word for words in from_sources for word in words})
    built = wheels["headrace"].parent
    environment.install("--dry-run", "--find-links", built, *(word for words in from_wheels for word in words[2:]))


@pytest.fixture(scope="session")
def client(wheels: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """Install the client alone."""
    environment = Environment(tmp_path_factory.mktemp("client"))
    environment.install(wheels["headrace"])
    return environment


@pytest.fixture(scope="session")
def gateway(wheels: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """Install the gateway."""
    environment = Environment(tmp_path_factory.mktemp("gateway"))
    environment.install(wheels["headrace-gateway"], wheels["headrace"])
    return environment


@pytest.fixture(scope="session")
def worker(wheels: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """Install the worker without extras."""
    environment = Environment(tmp_path_factory.mktemp("worker"))
    environment.install(wheels["headrace-worker"], wheels["headrace"])
    return environment


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_a_wheel_contains_types_licence_and_its_own_package_only(wheels: dict[str, Path], distribution: str):
    package = distribution.replace("-", "_")
    with zipfile.ZipFile(wheels[distribution]) as wheel:
        names = wheel.namelist()
    assert f"{package}/py.typed" in names
    assert any(name.endswith("/licenses/LICENSE") for name in names)
    assert {name.split("/")[0].split("-")[0] for name in names} == {package}


def test_a_wheel_has_a_description_and_a_licence(wheels: dict[str, Path]):
    for wheel in wheels.values():
        with zipfile.ZipFile(wheel) as archive:
            name = next(name for name in archive.namelist() if name.endswith("/METADATA"))
            head, _, description = archive.read(name).decode().partition("\n\n")
        assert "License-Expression: Apache-2.0" in head
        assert "Requires-Python: >=3.11" in head
        assert len(description.split()) > 50


def test_the_client_depends_on_no_heavy_package(client: Environment):
    assert not client.installed() & HEAVY


def test_importing_the_client_is_faster_than_importing_celery(client: Environment):
    seconds = "import time; start = time.perf_counter(); import {}; print(time.perf_counter() - start)"

    def median(module: str) -> float:
        return statistics.median(float(client.python(seconds.format(module))) for _ in range(7))

    median("headrace")  # the first import writes bytecode
    # `import celery` is lazy; every user of Celery imports its class.
    assert median("headrace") < max(0.150, median("celery.app.base"))


def test_the_client_imports_neither_celery_nor_redis_until_they_are_used(client: Environment):
    loaded = client.python(
        "import sys, headrace; print(*[m for m in ('celery', 'kombu', 'redis') if m in sys.modules])"
    )
    assert loaded == ""


def test_every_exported_name_exists(client: Environment):
    client.python("import headrace; [getattr(headrace, name) for name in headrace.__all__]")


def test_the_command_line_prints_help_with_the_client_alone(client: Environment):
    helped = client.headrace("--help")
    assert helped.returncode == 0
    assert {"submit", "batch", "status", "result", "cancel", "queues"} <= set(helped.stdout.split())


@pytest.mark.parametrize(
    ("command", "distribution"),
    [
        *((command, "headrace-worker") for command in ("worker", "models", "flower", "demo")),
        *((command, "headrace-gateway") for command in ("gateway", "notify")),
    ],
)
def test_a_command_of_another_distribution_names_what_to_install(
    client: Environment, command: str, distribution: str
):
    refused = client.headrace(command)
    assert refused.returncode != 0
    assert f": install {distribution}" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_the_version_is_that_of_the_distribution(client: Environment):
    version = client.python("import importlib.metadata as m; print(m.version('headrace'))")
    assert client.python("import headrace; print(headrace.__version__)") == version


def test_the_worker_requires_the_client_of_its_own_version(worker: Environment):
    code = "import importlib.metadata as m; print(m.version('headrace-worker'), *m.requires('headrace-worker'))"
    version, *requires = worker.python(code).split()
    assert f"headrace=={version}" in requires


def test_the_worker_runs_without_flower(worker: Environment):
    assert "flower" not in worker.installed()
    assert worker.headrace("worker", "--help").returncode == 0
    assert worker.headrace("models", "list", "--help").returncode == 0


@pytest.fixture(scope="session")
def builder(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """Install the build backend, which pip runs for wheels only."""
    environment = Environment(tmp_path_factory.mktemp("builder"))
    environment.install("hatchling")
    return environment


@pytest.mark.parametrize(("folder", "distribution"), list(zip(FOLDERS, DISTRIBUTIONS, strict=True)))
def test_a_wheel_of_the_source_distribution_has_the_same_files(
    builder: Environment, wheels: dict[str, Path], tmp_path: Path, folder: str, distribution: str
):
    build = (
        "import os, sys; os.chdir(sys.argv[1]); from hatchling.build import build_sdist; build_sdist(sys.argv[2])"
    )
    run(builder.bin / "python", "-c", build, ROOT / folder, tmp_path)
    (source,) = tmp_path.glob("*.tar.gz")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "--quiet", "--no-deps"]
    run(*pip, "--wheel-dir", tmp_path, source, timeout=300)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as rebuilt, zipfile.ZipFile(wheels[distribution]) as built:
        assert rebuilt.namelist() == built.namelist()


def test_the_gateway_requires_the_client_of_its_own_version_and_nothing_of_models(gateway: Environment):
    code = "import importlib.metadata as m; print(m.version('headrace-gateway'), *m.requires('headrace-gateway'))"
    version, *requires = gateway.python(code).split()
    assert f"headrace=={version}" in requires
    assert not gateway.installed() & MODELS


def test_the_gateway_makes_its_app_in_a_clean_environment(gateway: Environment):
    gateway.python(
        "from headrace_gateway.app import create_app; from headrace_gateway.settings import GatewaySettings; "
        "assert create_app(GatewaySettings()).routes"
    )
    assert gateway.headrace("gateway", "--help").returncode == 0


def test_the_producer_imports_no_web_framework(client: Environment):
    loaded = client.python(
        "import sys, headrace; from headrace import AsyncClient, Client; "
        "print(*{'aiohttp', 'httptools', 'starlette', 'uvicorn', 'uvloop'} & set(sys.modules))"
    )
    assert loaded == ""
