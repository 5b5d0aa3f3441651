"""The fixtures of the pytest plugin, in a test run of their own, as a user has it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from headrace.testing import AsyncInMemoryClient, InMemoryClient

TESTS = """
import pytest

@pytest.fixture
def headrace_models():
    return {"churn": lambda instances: [int(instance["age"] > 40) for instance in instances]}

def test_predicts(headrace_client):
    assert headrace_client.predict("churn", {"age": 41}).prediction == 1

def test_has_no_job_of_another_test(headrace_client, headrace_async_client):
    assert headrace_client.submitted == []
    assert headrace_async_client.blocking is headrace_client
"""

QUIET = """
import sys

def test_nothing_heavy_is_imported():
    heavy = ("redis", "celery", "kombu", "msgspec", "headrace.testing")
    assert [name for name in heavy if name in sys.modules] == []
"""


def run(folder: Path, text: str) -> subprocess.CompletedProcess[str]:
    (folder / "test_program.py").write_text(text)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:asyncio"]
    command += ["-W", "error", "test_program.py"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)


def test_pytest_finds_the_fixtures_by_itself(tmp_path: Path):
    process = run(tmp_path, TESTS)
    assert (process.returncode, process.stderr) == (0, ""), process.stdout
    assert "2 passed" in process.stdout


def test_a_run_that_uses_no_fixture_imports_nothing_heavy(tmp_path: Path):
    process = run(tmp_path, QUIET)
    assert process.returncode == 0, process.stdout


def test_without_models_of_its_own_a_test_has_clients_without_models(
    headrace_client: InMemoryClient, headrace_async_client: AsyncInMemoryClient
):
    assert headrace_client.models() == []
    assert headrace_async_client.submitted == []
