"""Command lines: each ends with one of the exit codes, and an error is one line that says what to do.

An input has an argument on each line; what follows a NUL byte is standard input. Commands that run until Ctrl-C
are interrupted, and none may replace its process, start one or listen on a port.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

from click.testing import CliRunner, Result

from headrace.cli import main
from tests.fuzz.packed import mutate_lines
from tests.fuzz.served import Served
from tests.fuzz.target import Target
from tests.support.foreign_clients import MODEL

_EXIT_CODES = frozenset((0, 1, 2, 3, 4, 130))
#: Seconds after which a command is interrupted as by Ctrl-C.
_SECONDS = 0.5
_ESCAPE = re.compile(r"\x1b|\x9b")
_FILES = {
    "rows.csv": b"0,1,2\n1,0,0\n2,0,0\n",
    "rows.jsonl": b"[1,0,0]\n[2,0,0]\n",
    "plan.json": b"{}",
}


def command_target(served: Served) -> Target:
    """Return the target of all commands."""
    return Target(
        name="a command line",
        inputs=_command_lines(),
        run=_Commands(served).run,
        count=2_000,
        mutate=mutate_lines,
        confined=True,
    )


class _Commands:
    """Runs commands in this process, in a folder of their own."""

    def __init__(self, served: Served) -> None:
        self._served = served
        self._was_interrupted = False

    def run(self, data: bytes) -> None:
        line, _, stdin = data.partition(b"\0")
        arguments = [os.fsdecode(argument) for argument in line.split(b"\n")]
        self._served.prepare()
        with self._own_folder(), self._interrupted_after(_SECONDS), _no_programs():
            result = CliRunner().invoke(main, arguments, input=stdin)
        if not self._was_interrupted:
            _check(result)

    @contextlib.contextmanager
    def _own_folder(self) -> Iterator[None]:
        """Run in a new folder with a few files, and with an environment that is restored."""
        former = Path.cwd()
        with tempfile.TemporaryDirectory(prefix="headrace-fuzz-") as folder:
            for name, content in _FILES.items():
                Path(folder, name).write_bytes(content)
            for name in ("model.skops", "example.json"):
                shutil.copy(self._served.folder / name, folder)
            shutil.copytree(self._served.folder / "models", Path(folder, "models"))
            environ = {"HEADRACE_REDIS_URL": self._served.url, "HEADRACE_CONNECT_TIMEOUT": "0.2", "HOME": folder}
            with mock.patch.dict(os.environ, environ):
                os.chdir(folder)
                try:
                    yield
                finally:
                    os.chdir(former)

    @contextlib.contextmanager
    def _interrupted_after(self, seconds: float) -> Iterator[None]:
        self._was_interrupted = False

        def interrupt(_number: int, _frame: object) -> None:
            self._was_interrupted = True
            raise KeyboardInterrupt

        former = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)}
        signal.signal(signal.SIGALRM, interrupt)
        signal.setitimer(signal.ITIMER_REAL, seconds, 0.1)  # again, where something catches it
        try:
            with contextlib.suppress(KeyboardInterrupt):
                yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            for number, handler in former.items():
                signal.signal(number, handler)


@contextlib.contextmanager
def _no_programs() -> Iterator[None]:
    """Let a command that would replace its process end, as the next program would begin."""

    def execute(*_: Any) -> None:
        raise SystemExit(0)

    with mock.patch.object(os, "execv", execute):
        yield


def _check(result: Result) -> None:
    shown = f"exit code {result.exit_code}: {result.stderr[-2000:]}"
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise AssertionError(shown) from result.exception
    assert result.exit_code in _EXIT_CODES, shown
    assert "Traceback" not in result.stderr, shown
    assert "please report it" not in result.stderr, shown
    if result.exit_code in {1, 2, 4}:
        assert result.stderr.strip() or result.stdout.strip(), shown
        assert not _ESCAPE.search(result.stderr), shown


def _command_lines() -> list[bytes]:
    """Return a command line for each command, with most of its options."""
    instance = "[1, 0, 0]"
    lines: list[list[str]] = [
        ["submit", MODEL, instance, "--id", "a", "--priority", "3", "--version", "1", "--metadata", "a=b"],
        ["submit", MODEL, "-", "--json", "--delay", "1", "--expires", "60"],
        ["batch", "rows.csv", "--model", MODEL, "-o", "out.csv", "--force", "--dry-run"],
        ["batch", MODEL, "rows.jsonl", "-o", "-", "--format", "jsonl", "--url", "redis://localhost:1/0"],
        *(["status", "job-1", "--json"], ["result", "job-1", "--timeout", "0.1"], ["result", "job-2", "--json"]),
        *(["cancel", "job-5"], ["explain", "job-1", "job-3"], ["explain", "none", "--json"], ["doctor", "--json"]),
        *(["dead", "list", "--model", MODEL, "--since", "1h"], ["dead", "groups"], ["dead", "show", "job-3"]),
        *(
            ["dead", "replay", "--all", "--yes"],
            ["dead", "purge", "job-3", "--yes"],
            ["dead", "export", "-o", "-"],
        ),
        *(["queues"], ["queues", "--json"], ["queues", "pause", MODEL], ["queues", "purge", MODEL, "--yes"]),
        *(["top", "--once", "--every", "0.1"], ["plan", MODEL, "--rate", "10", "--json"], ["help", "submit"]),
        *(["keys", "add", "ann", "--models", MODEL, "--rate", "5"], ["keys", "list", "--json"]),
        *(["keys", "rotate", "ann"], ["redis", "functions"], ["completion", "bash"], ["--version"], ["-h"]),
        ["bulk", "submit", MODEL, "in:a.csv", "out:scores", "--name", "nightly", "--key", "id", "--keep", "a,b"],
        *(["bulk", "list", "--json"], ["bulk", "status", "nightly"], ["bulk", "cancel", "nightly"]),
        *(["models", "list"], ["models", "show", MODEL, "--json"], ["models", "verify", f"{MODEL}@1"]),
        ["models", "add", "model.skops", "--name", "other", "--example", "example.json", "--method", "predict"],
        *(["models", "promote", f"{MODEL}@1", "--reason", "x"], ["models", "rollback", MODEL]),
        *(["models", "remove", f"{MODEL}@1", "--yes"], ["models", "drift", MODEL], ["models", "gc", "--dry-run"]),
        *(["models", "compare", f"{MODEL}@1", f"{MODEL}@1"], ["models", "diff", f"{MODEL}@1", f"{MODEL}@1"]),
        ["models", "publish", "--store", "./models", "--url", "redis://localhost:1/0"],
        ["worker", "--models", MODEL, "--concurrency", "2", "--time-limit", "5", "-Q", "x", "--pool", "solo"],
        *(["exporter", "--port", "0", "--class", "a=b"], ["flower", "--open", "--port", "0"], ["health"]),
        *(["gateway", "--port", "0", "--processes", "1"], ["notify", "secret"], ["notify"], ["dev"], ["demo"]),
    ]
    return ["\n".join(line).encode() for line in lines] + [b"submit\n%s\n-\0[1,0,0]" % MODEL.encode()]
