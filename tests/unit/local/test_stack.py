"""Child processes of a stack: ready or said why not, and always stopped."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from headrace.errors import HeadraceError
from headrace_worker.local import stack
from headrace_worker.local.stack import Child, until_interrupted


def child(folder: Path, code: str) -> Child:
    script = folder / "child_of_a_test.py"
    script.write_text(code)
    return Child("child", ["child_of_a_test"], {"PYTHONPATH": str(folder)}, folder / "child.log")


def lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 10
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_child_that_ended_is_said_with_its_last_words(tmp_path: Path):
    ended = child(tmp_path, "print('too much'); print('out of oil'); raise SystemExit(3)")
    ended.process.wait(10)
    with pytest.raises(HeadraceError, match=r"the child ended with exit code 3; .*\n(.*\n)*out of oil"):
        ended.check()


def test_a_child_is_asked_to_end(tmp_path: Path):
    polite = child(tmp_path, "import signal; signal.pause()")
    polite.check()
    polite.stop()
    assert polite.process.returncode == -signal.SIGTERM
    polite.stop()


def test_a_child_that_does_not_end_is_killed_with_what_it_forked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(stack, "_STOP_SECONDS", 0.2)
    stubborn = child(
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
    while lives(forked):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_child_that_is_never_ready_is_stopped_and_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(stack, "_READY_SECONDS", 0.2)
    idle = child(tmp_path, "import signal; signal.pause()")
    with pytest.raises(HeadraceError, match=r"the child was not ready after 0 s; see .*child.log"):
        stack._wait(idle, lambda: False)
    assert idle.process.returncode is not None


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_block_and_a_second_one_does_not_disturb_its_end(number: signal.Signals):
    ended = []

    def end() -> None:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)
        ended.append(True)

    def run() -> None:
        with until_interrupted() as running:
            running.callback(end)
            signal.raise_signal(number)

    former = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        run()
    assert ended == [True]
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == former


def test_a_block_that_is_over_ends_undisturbed():
    with until_interrupted() as running:
        running.callback(signal.raise_signal, signal.SIGTERM)


@pytest.mark.skipif(shutil.which("setpriv") is None, reason="no setpriv (util-linux), which ties children to us")
def test_nothing_outlives_a_parent_that_is_killed(tmp_path: Path):
    up = tmp_path / "up"
    (tmp_path / "child_of_a_test.py").write_text(f"import signal; open({str(up)!r}, 'w').close(); signal.pause()")
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
    wait_for(up)
    assert lives(int(child))
    assert lives(int(server))
    parent.kill()
    parent.wait()
    parent.stdout.close()
    deadline = time.monotonic() + 10
    while lives(int(child)) or lives(int(server)):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    shutil.rmtree(folder)
