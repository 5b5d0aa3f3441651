"""The part file of a run: one run a target, nothing left of dead runs, renamed when complete."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from headrace.batch.part_file import open_part_file
from headrace.errors import InvalidInput

#: Opens the part file of its argument, writes to it, and waits to be killed.
RUN = """
import sys
from pathlib import Path
from headrace.batch.part_file import open_part_file
with open_part_file(Path(sys.argv[1])) as part_file:
    part_file.file.write(b"half")
    part_file.file.flush()
    print("open", flush=True)
    sys.stdin.read()
"""


@contextmanager
def other_run(target: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a process that writes the target until the block ends; it is killed then."""
    with subprocess.Popen(
        [sys.executable, "-c", RUN, target], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"open\n"
        try:
            yield process
        finally:
            process.kill()


def part_files(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.name.endswith(".headrace-part")]


def write(target: Path, content: bytes) -> None:
    with open_part_file(target) as part_file:
        part_file.file.write(content)


@pytest.mark.parametrize("name", ["out.csv", "ü" * 120 + ".csv", "a b;c.jsonl"])
def test_a_run_after_a_killed_one_starts_afresh(tmp_path: Path, name: str):
    target = tmp_path / name
    with other_run(target) as process:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert len(part_files(tmp_path)) == 1
    write(target, b"new")
    assert target.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [target]


def test_a_second_run_with_the_same_target_is_refused_and_the_first_goes_on(tmp_path: Path):
    target, link = tmp_path / "out.csv", tmp_path / "link.csv"
    link.symlink_to(target)
    with open_part_file(target) as part_file:
        part_file.file.write(b"first")
        for name in (target, link.resolve()):
            with pytest.raises(InvalidInput, match=r"another run writes .*out\.csv now; wait for it, or stop it"):
                write(name, b"second")
    assert target.read_bytes() == b"first"
    with other_run(target), pytest.raises(InvalidInput, match="another run"):
        write(target, b"second")
    write(target, b"third")
    assert target.read_bytes() == b"third"


def test_parts_of_runs_that_died_a_week_ago_are_removed_and_those_of_others_stay(tmp_path: Path):
    foreign = tmp_path / ".upload.part"
    foreign.write_text("of another program")
    with other_run(tmp_path / "alive.csv"):
        with other_run(tmp_path / "dead.csv"):
            pass
        write(tmp_path / "out.csv", b"x")
        assert len(part_files(tmp_path)) == 2, "somebody may go on with the dead run"
        for path in part_files(tmp_path):
            os.utime(path, (0, 0))
        write(tmp_path / "more.csv", b"x")
        (left,) = part_files(tmp_path)
        assert left.name.startswith(".alive.csv")
    assert foreign.exists()


def test_targets_with_the_same_first_letters_have_part_files_of_their_own(tmp_path: Path):
    names = [tmp_path / ("x" * 200 + letter) for letter in "ab"]
    with open_part_file(names[0]) as first, open_part_file(names[1]) as second:
        first.file.write(b"1")
        second.file.write(b"2")
    assert [name.read_bytes() for name in names] == [b"1", b"2"]


def test_a_run_that_waited_for_the_end_of_another_gets_a_file_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    target = tmp_path / "out.csv"
    lock, runs = fcntl.flock, []

    def flock(descriptor: int, operation: int) -> None:
        # Between the opening and the locking of the part file, another run renames it.
        if not runs:
            runs.append("other")
            part_files(tmp_path)[0].rename(target)
        lock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", flock)
    with open_part_file(target) as part_file:
        part_file.file.write(b"second")
        assert target.read_bytes() == b""
    assert target.read_bytes() == b"second"


def test_a_symbolic_link_under_the_name_of_a_part_file_is_not_followed(tmp_path: Path):
    target, precious = tmp_path / "out.csv", tmp_path / "precious"
    precious.write_text("precious")
    with open_part_file(target):
        (part_path,) = part_files(tmp_path)
    part_path.symlink_to(precious)
    with pytest.raises(InvalidInput, match="cannot be written"):
        write(target, b"x")
    assert precious.read_text() == "precious"


def test_a_file_system_without_locks_gives_each_run_a_part_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def flock(descriptor: int, operation: int) -> None:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    monkeypatch.setattr(fcntl, "flock", flock)
    target = tmp_path / "out.csv"
    with open_part_file(target) as first:
        first.file.write(b"first")
        write(target, b"second")
        assert target.read_bytes() == b"second"
    assert target.read_bytes() == b"first"
    assert list(tmp_path.iterdir()) == [target]


def test_a_folder_that_refuses_files_is_named(tmp_path: Path):
    with pytest.raises(InvalidInput, match=r"no/out\.csv cannot be written: No such file"):
        write(tmp_path / "no" / "out.csv", b"x")
