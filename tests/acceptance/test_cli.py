"""The command line itself: its help, its errors, its exit codes."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from headrace.cli.commands import _OWN
from tests.support.command import headrace

UNREACHABLE = "redis://:hunter2@127.0.0.1:1/0"


def test_help_lists_the_commands_of_both_distributions():
    shown = headrace("--help")
    assert shown.returncode == 0
    for command in (*_OWN, "demo", "dev", "flower", "models", "worker"):
        assert f"\n  {command} " in shown.stdout
    assert "3 some jobs failed" in shown.stdout


def test_help_imports_nothing_it_does_not_need():
    program = (
        "import sys, atexit\n"
        "atexit.register(lambda: print(sorted(sys.modules), file=sys.stderr))\n"
        "from headrace.cli import main\n"
        "main(['--help'])\n"
    )
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    for module in ("redis", "celery", "kombu", "sklearn", "numpy", "headrace_worker", "headrace.cli.batch"):
        assert f"'{module}'" not in shown.stderr


def test_a_commands_help_needs_no_redis():
    for command in _OWN:
        shown = headrace(command, "--help", HEADRACE_REDIS_URL=UNREACHABLE)
        assert shown.returncode == 0
        assert shown.stdout.startswith(f"Usage: headrace {command} ")


def test_a_misspelt_command_is_told_the_near_one_and_exits_2():
    shown = headrace("bach")
    assert shown.returncode == 2
    assert shown.stderr == "headrace: no command 'bach'; did you mean 'batch'? (see `headrace --help`)\n"
    assert shown.stdout == ""


def test_no_command_shows_the_help_and_exits_2():
    shown = headrace()
    assert shown.returncode == 2
    assert "batch" in shown.stderr


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
    shown = headrace(*arguments, HEADRACE_REDIS_URL=UNREACHABLE)
    assert shown.returncode == 2
    assert len(shown.stderr.splitlines()) == 1
    assert f"see `headrace {arguments[0]} --help`" in shown.stderr


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
    shown = headrace(*arguments, "--url", UNREACHABLE)
    assert shown.returncode == 1, shown.stderr
    assert len(shown.stderr.splitlines()) == 1
    assert "127.0.0.1:1" in shown.stderr
    assert "hunter2" not in shown.stderr
    assert shown.stdout == ""


def test_a_wrong_setting_names_its_variable():
    shown = headrace("queues", HEADRACE_CONNECT_TIMEOUT="soon")
    assert shown.returncode == 1
    assert "HEADRACE_CONNECT_TIMEOUT" in shown.stderr


def test_a_command_of_the_worker_says_how_to_install_it():
    program = (
        "import importlib.metadata as m\n"
        "m.entry_points = lambda **_: []\n"
        "from headrace.cli import main\n"
        "main(['worker'])\n"
    )
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert shown.returncode == 1
    assert shown.stderr == "headrace: `headrace worker` comes with the worker: pip install headrace-worker\n"


def test_a_reader_who_has_enough_is_no_error_message():
    shown = subprocess.run(
        [f"{sys.executable} -m headrace.cli --help | true"],
        shell=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert shown.stderr == ""


def test_an_error_nobody_foresaw_shows_no_traceback_and_no_message():
    program = (
        "import headrace.cli.options as options\n"
        "def connect(at): raise RuntimeError('age=41')\n"
        "options.connect = connect\n"
        "from headrace.cli import main\n"
        "main(['queues'])\n"
    )
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert shown.returncode == 1
    assert "unexpected RuntimeError" in shown.stderr
    assert "age" not in shown.stderr
    assert "Traceback" not in shown.stderr


def test_a_command_of_a_daemon_without_standard_streams_shows_no_traceback():
    command = f"exec {sys.executable} -m headrace.cli queues --url {UNREACHABLE} <&- >&-"
    shown = subprocess.run(["sh", "-c", command], stderr=subprocess.PIPE, text=True, timeout=60)
    assert shown.returncode == 1
    assert "cannot be reached" in shown.stderr


def test_help_is_quick():
    best = 60.0
    for _ in range(3):
        started = time.monotonic()
        headrace("--help")
        best = min(best, time.monotonic() - started)
    assert best < 1.0  # 0.15 s on an idle machine
