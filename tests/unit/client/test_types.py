"""Programs written against the public names alone pass mypy and pyright, both strict.

The programs are in tests/support/typed_programs: a service, its test, and a script.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import ROOT

PROGRAMS = ROOT / "tests" / "support" / "typed_programs"
NAMES = ["service.py", "check_service.py", "script.py"]

#: A use of each name that a type checker must refuse.
MISTAKES = """
from headrace import AnyClient, Client, JobFailed, JobOptions
from headrace.testing import InMemoryClient


def misuse(client: AnyClient, failure: JobFailed) -> None:
    client.predict("churn", {"age": 1}, timeout="5")
    client.job("a").cancel(unknwon=True)
    wrong: JobOptions = {"priorty": 9}
    print(failure.reason == "no such reason", wrong)


misuse(object(), JobFailed("x", job="a", reason="permanent", error="E"))
"""


def check(checker: str, folder: Path) -> str:
    """Run a type checker on the programs of a folder, and return what it says; empty if it accepts them."""
    if checker == "mypy":
        names = sorted(path.name for path in folder.glob("*.py"))
        command = ["mypy", "--strict", "--no-error-summary", "--config-file", os.devnull, *names]
    else:
        settings = {"typeCheckingMode": "strict", "extraPaths": [str(ROOT / "producer")], "include": ["."]}
        (folder / "pyrightconfig.json").write_text(json.dumps(settings))
        command = ["pyright", "--pythonpath", sys.executable]
    environ = {**os.environ, "MYPYPATH": str(ROOT / "producer"), "PYRIGHT_PYTHON_IGNORE_WARNINGS": "1"}
    process = subprocess.run(
        [sys.executable, "-m", *command], env=environ, cwd=folder, capture_output=True, text=True, timeout=170
    )
    return "" if process.returncode == 0 else process.stdout + process.stderr


@pytest.mark.parametrize("checker", ["mypy", "pyright"])
def test_a_service_its_test_and_a_script_have_no_type_error(checker: str, tmp_path: Path):
    pytest.importorskip(checker)
    for name in NAMES:
        shutil.copy(PROGRAMS / name, tmp_path)
    assert check(checker, tmp_path) == ""


@pytest.mark.parametrize("checker", ["mypy", "pyright"])
def test_the_types_refuse_mistakes(checker: str, tmp_path: Path):
    pytest.importorskip(checker)
    (tmp_path / "mistakes.py").write_text(MISTAKES)
    answer = check(checker, tmp_path)
    lines = MISTAKES.splitlines()
    for mistake in ("timeout=", "unknwon", "priorty", "no such reason", "object()"):
        number = 1 + next(index for index, line in enumerate(lines) if mistake in line)
        assert f"mistakes.py:{number}:" in answer, (mistake, answer)


def test_the_service_runs_with_the_in_memory_clients():
    command = [sys.executable, "-W", "error", "check_service.py"]
    process = subprocess.run(command, cwd=PROGRAMS, capture_output=True, text=True, timeout=60)
    assert (process.returncode, process.stderr) == (0, "")
