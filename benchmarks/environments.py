"""The virtual environments of the peers: created once, each from a file of requirements/."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
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


def newer_python(minimum: tuple[int, int]) -> str | None:
    """Return a working Python of at least that version, from PATH; None where there is none."""
    if sys.version_info >= minimum:
        return sys.executable
    for minor in range(minimum[1] + 3, minimum[1] - 1, -1):
        candidate = shutil.which(f"python3.{minor}")
        # A version manager may have a shim for a Python that is not installed.
        if candidate:
            trial = subprocess.run([candidate, "-c", ""], capture_output=True, timeout=20, check=False)
            if trial.returncode == 0:
                return candidate
    return None


def _run(*command: str) -> None:
    try:
        completed = subprocess.run(command, capture_output=True, text=True, timeout=_INSTALL_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise EnvironmentFailed(f"its environment was not created within {_INSTALL_SECONDS} s") from None
    if completed.returncode:
        lines = (completed.stderr.strip() or completed.stdout.strip()).splitlines()
        raise EnvironmentFailed(f"its environment cannot be created: {lines[-1] if lines else 'pip failed'}")
