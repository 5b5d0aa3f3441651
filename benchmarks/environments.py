"""The virtual environments of the peers: created once, each from a file of requirements/."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

_BENCHMARKS = Path(__file__).parent
#: The folder of the environments, in the root of the repository.
FOLDER = _BENCHMARKS.parent / ".venv-bench"
#: Distributions that have Headrace's version in every environment, so that all run the same estimators.
_SHARED = ("scikit-learn", "joblib")
_INSTALL_SECONDS = 600


class EnvironmentFailed(Exception):
    """The reason why the peers of an environment are left out."""


def interpreter(name: str, *, python: str | None = None) -> Path:
    """Return the interpreter of an environment, and create the environment where it is missing or outdated.

    `python` creates it; None is the interpreter that runs the suite. Raises EnvironmentFailed.
    """
    requirements = _BENCHMARKS / "requirements" / f"{name}.txt"
    shared = [f"{distribution}=={version(distribution)}" for distribution in _SHARED]
    state = hashlib.sha256(requirements.read_bytes() + " ".join([*shared, python or ""]).encode()).hexdigest()
    folder = FOLDER / name
    state_file, executable = folder / "headrace-bench", folder / "bin" / "python"
    if state_file.exists() and state_file.read_text() == state:
        return executable
    print(f"creating the environment {name} for peers (once)", file=sys.stderr)
    shutil.rmtree(folder, ignore_errors=True)
    _run(python or sys.executable, "-m", "venv", str(folder))
    install = ("--quiet", "--disable-pip-version-check", "install", "-r", str(requirements), *shared)
    _run(str(executable), "-m", "pip", *install)
    state_file.write_text(state)
    return executable


def find_python(minimum: tuple[int, int], *, environ: Mapping[str, str] = os.environ) -> str | None:
    """Return a working Python of at least that version, the newest of the first place that has one.

    The places are the interpreter that runs the suite, PATH, pyenv's versions and uv's. None where there is none.
    """
    if sys.version_info >= minimum:
        return sys.executable
    names = [f"python3.{minor}" for minor in range(minimum[1] + 3, minimum[1] - 1, -1)]
    on_path = (path for name in names if (path := shutil.which(name, path=environ.get("PATH"))))
    home = Path(environ.get("HOME", "/"))
    folders = (
        Path(environ.get("PYENV_ROOT", home / ".pyenv")) / "versions",
        Path(environ.get("UV_PYTHON_INSTALL_DIR", home / ".local" / "share" / "uv" / "python")),
    )
    managed = (str(path) for folder in folders for name in names for path in sorted(folder.glob(f"*/bin/{name}")))
    return next((candidate for candidate in (*on_path, *managed) if _works(candidate)), None)


def _works(python: str) -> bool:
    """Decide whether an interpreter runs. A version manager may have a shim for one that is not installed."""
    try:
        return subprocess.run([python, "-c", ""], capture_output=True, timeout=20, check=False).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def _run(*command: str) -> None:
    try:
        completed = subprocess.run(command, capture_output=True, text=True, timeout=_INSTALL_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise EnvironmentFailed(f"its environment was not created within {_INSTALL_SECONDS} s") from None
    if completed.returncode:
        lines = (completed.stderr.strip() or completed.stdout.strip()).splitlines()
        raise EnvironmentFailed(f"its environment cannot be created: {lines[-1] if lines else 'pip failed'}")
