"""The virtual environments of the peers: made once, each from one file of requirements/."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

_HERE = Path(__file__).parent
#: Beside the checkout's own environment.
FOLDER = _HERE.parent / ".venv-bench"
#: All peers run the estimators of the scikit-learn that Headrace runs.
_SHARED = ("scikit-learn", "joblib")
_INSTALL_SECONDS = 600


class NoEnvironment(Exception):
    """Why the peers of an environment are left out."""


def interpreter(name: str, *, python: str | None = None) -> Path:
    """The interpreter of an environment, made if it is not there yet. Raises NoEnvironment.

    `python` makes it instead of the interpreter that runs the suite.
    """
    wanted = _HERE / "requirements" / f"{name}.txt"
    shared = [f"{distribution}=={version(distribution)}" for distribution in _SHARED]
    state = hashlib.sha256(wanted.read_bytes() + " ".join([*shared, python or ""]).encode()).hexdigest()
    folder = FOLDER / name
    mark, made = folder / "headrace-bench", folder / "bin" / "python"
    if mark.exists() and mark.read_text() == state:
        return made
    print(f"making the environment {name} of the peers (once)", file=sys.stderr)
    shutil.rmtree(folder, ignore_errors=True)
    _run(python or sys.executable, "-m", "venv", str(folder))
    _run(str(made), "-m", "pip", "--quiet", "--disable-pip-version-check", "install", "-r", str(wanted), *shared)
    mark.write_text(state)
    return made


def newer_python(at_least: tuple[int, int]) -> str | None:
    """A Python on PATH that is new enough and runs."""
    if sys.version_info >= at_least:
        return sys.executable
    for minor in range(at_least[1] + 3, at_least[1] - 1, -1):
        found = shutil.which(f"python3.{minor}")
        # A shim of a version manager may stand for a Python that is not there.
        if (
            found
            and subprocess.run([found, "-c", ""], capture_output=True, timeout=20, check=False).returncode == 0
        ):
            return found
    return None


def _run(*command: str) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_INSTALL_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise NoEnvironment(f"its environment was not made within {_INSTALL_SECONDS} s") from None
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip()).splitlines()
        raise NoEnvironment(f"its environment cannot be made here: {said[-1] if said else 'pip failed'}")
