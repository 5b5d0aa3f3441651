"""Tests of the command line itself: help, errors and exit codes."""

from __future__ import annotations

import subprocess
import sys

import pytest

from headrace.cli.commands import _CLIENT_COMMANDS
from tests.support.command import headrace

UNREACHABLE = "redis://:hunter2@127.0.0.1:1/0"


def test_help_lists_the_commands_of_both_distributions():
    result = headrace("--help")
    assert result.returncode == 0
    for command in (*_CLIENT_COMMANDS, "demo", "dev", "flower", "models", "worker"):
        assert f"\n  {command} " in result.stdout
    assert "3 some jobs failed" in result.stdout


def test_help_imports_no_large_library_and_no_command():
    program = (
        "import sys, atexit\n"
        "atexit.register(lambda: print(sorted(sys.modules), file=sys.stderr))\n"
        "from headrace.cli import main\n"
        "main(['--help'])\n"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    large = ("redis", "celery", "kombu", "sklearn", "numpy", "asyncio", "msgspec", "headrace_worker")
    for module in (*large, "headrace.cli.batch"):
        assert f"'{module}'" not in result.stderr


def test_a_commands_help_needs_no_redis():
    for command in _CLIENT_COMMANDS:
        result = headrace(command, "--help", HEADRACE_REDIS_URL=UNREACHABLE)
        assert result.returncode == 0
        assert result.stdout.startswith(f"Usage: headrace {command} ")


def test_a_misspelt_command_gets_a_suggestion_and_exits_2():
    result = headrace("bach")
    assert result.returncode == 2
    assert result.stderr == "headrace: no command 'bach'; did you mean 'batch'? (see `headrace --help`)\n"
    assert result.stdout == ""


def test_no_command_shows_the_help_and_exits_2():
    result = headrace()
    assert result.returncode == 2
    assert "batch" in result.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["status"],
        ["batch", "churn", "in.csv"],
        ["submit", "churn", "{}", "--priority", "10"],
        ["submit", "churn", "{}", "--timeout", "nan"],
        ["submit", "churn", "{}", "--timeout", "-1"],
        ["result", "x", "--timeout", "soon"],
        ["batch", "churn", "-", "-o", "-", "--format", "csv", "--json"],
        ["batch", "churn", "-", "-o", "-", "--delimiter", "ab"],
    ],
)
def test_wrong_usage_is_one_line_and_exits_2(arguments):
    result = headrace(*arguments, HEADRACE_REDIS_URL=UNREACHABLE)
    assert result.returncode == 2
    assert len(result.stderr.splitlines()) == 1
    assert f"see `headrace {arguments[0]} --help`" in result.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["submit", "churn", "{}"],
        ["status", "a"],
        ["result", "a"],
        ["cancel", "a"],
        ["queues"],
        ["batch", "churn", "in.csv", "-o", "out.csv"],
    ],
)
def test_an_unreachable_redis_is_one_line_without_the_password_and_exits_1(arguments):
    result = headrace(*arguments, "--url", UNREACHABLE)
    assert result.returncode == 1, result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert "127.0.0.1:1" in result.stderr
    assert "hunter2" not in result.stderr
    assert result.stdout == ""


def test_a_wrong_setting_names_its_variable():
    result = headrace("queues", HEADRACE_CONNECT_TIMEOUT="soon")
    assert result.returncode == 1
    assert "HEADRACE_CONNECT_TIMEOUT" in result.stderr


def test_a_command_of_the_worker_says_how_to_install_it():
    program = (
        "import importlib.metadata as m\n"
        "m.entry_points = lambda **_: []\n"
        "from headrace.cli import main\n"
        "main(['worker'])\n"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert result.returncode == 1
    assert result.stderr == "headrace: `headrace worker` comes with the worker: install headrace-worker\n"


def test_a_closed_pipe_is_no_error_message():
    result = subprocess.run(
        [f"{sys.executable} -m headrace.cli --help | true"],
        shell=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.stderr == ""


def test_an_unexpected_error_shows_no_traceback_and_no_message():
    program = (
        "import headrace.cli.options as options\n"
        "def open_client(redis_url): raise RuntimeError('age=41')\n"
        "options.open_client = open_client\n"
        "from headrace.cli import main\n"
        "main(['status', 'a'])\n"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert result.returncode == 1
    assert "unexpected RuntimeError" in result.stderr
    assert "age" not in result.stderr
    assert "Traceback" not in result.stderr


def test_a_command_of_a_daemon_without_standard_streams_shows_no_traceback():
    command = f"exec {sys.executable} -m headrace.cli queues --url {UNREACHABLE} <&- >&-"
    result = subprocess.run(["sh", "-c", command], stderr=subprocess.PIPE, text=True, timeout=60)
    assert result.returncode == 1
    assert "cannot be reached" in result.stderr
