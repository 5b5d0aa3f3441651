"""The tests of docs/how-to/test-a-service.md pass, and so does the test of the FastAPI example."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import skops.io
from sklearn.linear_model import LogisticRegression

from headrace_worker.packaging.package import package
from headrace_worker.store.store import Store
from tests.support import ROOT

PAGE = (ROOT / "docs" / "how-to" / "test-a-service.md").read_text(encoding="utf-8")
EXAMPLES = ROOT / "examples"


def run_pytest(*arguments: str, folder: Path) -> str:
    """Run pytest in a folder, without the settings of this project. Return what it prints."""
    # Of the plugins installed here, pytest-asyncio and starlette's test client warn in a project without settings.
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:asyncio", "-p", "no:cacheprovider"]
    command += ["-c", str(folder / "pytest.ini"), "--rootdir", str(folder), *arguments]
    (folder / "pytest.ini").write_text("[pytest]\n")
    process = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=150)
    assert process.returncode == 0, process.stdout + process.stderr
    return process.stdout


def test_the_tests_of_the_page_pass(tmp_path: Path):
    service, functions, version, web = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    (tmp_path / "test_functions.py").write_text(service + functions)
    (tmp_path / "test_version.py").write_text(service + version)
    head = (EXAMPLES / "test_fastapi_service.py").read_text().partition("@pytest.fixture\ndef web")[0]
    head = head.replace("import fastapi_service", f"sys.path.insert(0, {str(EXAMPLES)!r})\nimport fastapi_service")
    (tmp_path / "test_web.py").write_text("import sys\n" + head + web)

    table = pd.DataFrame({"age": [20, 30, 40, 50]})
    skops.io.dump(LogisticRegression().fit(table, [0, 0, 1, 1]), tmp_path / "churn.skops")
    table.to_csv(tmp_path / "rows.csv", index=False)
    store = Store(tmp_path / "models")
    package(store, tmp_path / "churn.skops", name="churn", example=tmp_path / "rows.csv")

    assert "4 passed" in run_pytest(folder=tmp_path)


def test_the_test_of_the_fastapi_example_passes(tmp_path: Path):
    assert "5 passed" in run_pytest(str(EXAMPLES / "test_fastapi_service.py"), folder=tmp_path)
