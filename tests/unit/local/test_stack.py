"""Child processes of a stack become ready or fail with a reason, and are always stopped."""

from __future__ import annotations

import contextlib
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from headrace.errors import HeadraceError
from headrace_worker.local import stack
from headrace_worker.local.stack import Child, hold_interrupts, interruptible_stack, raise_if_interrupted


def start_child(folder: Path, code: str) -> Child:
    script = folder / "child_of_a_test.py"
    script.write_text(code)
    return Child("child", ["child_of_a_test"], {"PYTHONPATH": str(folder)}, folder / "child.log")


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 10
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_child_that_exited_is_an_error_with_its_last_log_lines(tmp_path: Path):
    exited = start_child(tmp_path, "print('too much'); print('out of oil'); raise SystemExit(3)")
    exited.process.wait(10)
    with pytest.raises(HeadraceError, match=r"the child exited with code 3; .*\n(.*\n)*out of oil"):
        exited.check()


def test_a_child_receives_sigterm(tmp_path: Path):
    child = start_child(tmp_path, "import signal; signal.pause()")
    child.check()
    child.stop()
    assert child.process.returncode == -signal.SIGTERM
    child.stop()


def test_a_child_that_ignores_sigterm_is_killed_with_its_own_children(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(stack, "_STOP_SECONDS", 0.2)
    stubborn = start_child(
        tmp_path,
        f"""
import os, pathlib, signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
forked = os.fork()
if forked:
    pathlib.Path({str(tmp_path / "forked.part")!r}).write_text(str(forked))
    os.rename({str(tmp_path / "forked.part")!r}, {str(tmp_path / "forked")!r})
while True:
    signal.pause()
""",
    )
    wait_for(tmp_path / "forked")
    forked = int((tmp_path / "forked").read_text())
    stubborn.stop()
    assert stubborn.process.returncode == -signal.SIGKILL
    deadline = time.monotonic() + 5
    while is_running(forked):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_child_that_does_not_become_ready_is_stopped_and_an_error(tmp_path: Path):
    idle = start_child(tmp_path, "import signal; signal.pause()")
    with pytest.raises(HeadraceError, match=r"the child was not ready after 0 s; see .*child.log"):
        stack._wait_until(lambda: False, idle, 0.2)
    assert idle.process.returncode is not None


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_block_and_later_signals_do_not_interrupt_its_callbacks(number: signal.Signals):
    completed = []

    def callback() -> None:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)
        completed.append(True)

    def run() -> None:
        with interruptible_stack() as running:
            running.callback(callback)
            signal.raise_signal(number)

    former = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        run()
    assert completed == [True]
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == former


def test_a_signal_during_the_callbacks_is_ignored():
    with interruptible_stack() as running:
        running.callback(signal.raise_signal, signal.SIGTERM)


def test_a_held_signal_ends_the_block_after_what_holds_it():
    completed = []

    def run() -> None:
        with interruptible_stack(), hold_interrupts():
            signal.raise_signal(signal.SIGINT)
            completed.append(True)

    with pytest.raises(KeyboardInterrupt):
        run()
    assert completed == [True]


def test_a_signal_whose_exception_was_swallowed_is_raised_again():
    def run() -> None:
        with interruptible_stack():
            with contextlib.suppress(KeyboardInterrupt):  # as a callback of C code does
                signal.raise_signal(signal.SIGINT)
            raise_if_interrupted()

    with pytest.raises(KeyboardInterrupt):
        run()
    raise_if_interrupted()


def test_a_child_without_a_callback_is_stopped_at_the_end(tmp_path: Path):
    with interruptible_stack():
        child = start_child(tmp_path, "import signal; signal.pause()")
    assert child.process.returncode == -signal.SIGTERM


@pytest.mark.skipif(shutil.which("setpriv") is None, reason="needs setpriv from util-linux")
def test_children_end_when_their_parent_is_killed(tmp_path: Path):
    started = tmp_path / "started"
    (tmp_path / "child_of_a_test.py").write_text(
        f"import signal; open({str(started)!r}, 'w').close(); signal.pause()"
    )
    script = """
import pathlib, sys, time
from headrace_worker.local.embedded_redis import EmbeddedRedis
from headrace_worker.local.stack import Child
folder = pathlib.Path(sys.argv[1])
redis = EmbeddedRedis().start()
child = Child("child", ["child_of_a_test"], {"PYTHONPATH": str(folder)}, folder / "child.log")
print(child.process.pid, redis._process.pid, redis._folder, flush=True)
time.sleep(60)
"""
    parent = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child, server, folder = parent.stdout.readline().split()
    wait_for(started)
    assert is_running(int(child))
    assert is_running(int(server))
    parent.kill()
    parent.wait()
    parent.stdout.close()
    deadline = time.monotonic() + 10
    while is_running(int(child)) or is_running(int(server)):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    shutil.rmtree(folder)
