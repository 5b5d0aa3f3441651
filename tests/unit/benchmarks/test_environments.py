"""The benchmarks find a Python that a peer needs, where PATH, pyenv or uv has one."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from benchmarks.environments import find_python

MINIMUM = (3, sys.version_info.minor + 1)
NAME = f"python3.{MINIMUM[1]}"


def make_python(folder: Path, name: str = NAME, *, exit_code: int = 0) -> str:
    """Write an executable that ends with a code, as an interpreter or a shim of a version manager does."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / name
    file.write_text(f"#!/bin/sh\nexit {exit_code}\n")
    file.chmod(0o755)
    return str(file)


def test_the_interpreter_of_the_suite_is_taken_if_it_is_new_enough():
    assert find_python(sys.version_info[:2], environ={}) == sys.executable


@pytest.mark.parametrize(
    ("folder", "variable"), [("versions/3.x/bin", "PYENV_ROOT"), ("cpython-3.x/bin", "UV_PYTHON_INSTALL_DIR")]
)
def test_a_python_of_a_version_manager_is_found_behind_a_shim_that_does_not_run(
    tmp_path: Path, folder: str, variable: str
):
    make_python(tmp_path / "shims", exit_code=127)
    python = make_python(tmp_path / "manager" / folder)
    environ = {"PATH": str(tmp_path / "shims"), variable: str(tmp_path / "manager"), "HOME": str(tmp_path)}
    assert find_python(MINIMUM, environ=environ) == python


def test_the_newest_of_several_is_taken(tmp_path: Path):
    versions = tmp_path / ".pyenv" / "versions"
    make_python(versions / "a" / "bin")
    newer = make_python(versions / "b" / "bin", f"python3.{MINIMUM[1] + 1}")
    assert find_python(MINIMUM, environ={"HOME": str(tmp_path), "PATH": ""}) == newer


def test_an_older_python_is_not_taken(tmp_path: Path):
    make_python(tmp_path / ".pyenv" / "versions" / "a" / "bin", f"python3.{MINIMUM[1] - 1}")
    assert find_python(MINIMUM, environ={"HOME": str(tmp_path), "PATH": ""}) is None
