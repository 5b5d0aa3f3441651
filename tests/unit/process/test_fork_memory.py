"""Memory is gathered into huge pages before forks, and nothing in it changes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from headrace_worker.process import fork_memory
from headrace_worker.process.fork_memory import HUGE, gatherable


def test_only_a_process_s_own_data_is_gathered_by_whole_huge_pages():
    maps = [
        "555555554000-555555800000 r-xp 00000000 fe:00 12 /usr/bin/python3",
        "555556000000-555556700000 rw-p 00000000 00:00 0 [heap]",
        "7f0000100000-7f0000a00000 rw-p 00000000 00:00 0",
        "7f0000b00000-7f0000c00000 rw-p 00000000 00:00 0",
        "7f1000000000-7f1000800000 rw-p 00001000 fe:00 77 /usr/lib/libc.so.6",
        "7f2000000000-7f2000800000 rw-s 00000000 00:01 99 /dev/zero (deleted)",
        "7f3000000000-7f3000800000 ---p 00000000 00:00 0",
        "7ffc00000000-7ffc00800000 rw-p 00000000 00:00 0 [stack]",
    ]
    assert list(gatherable(maps)) == [
        (0x555556000000, 0x555556600000),
        (0x7F0000200000, 0x7F0000A00000),
    ]
    assert all(bound % HUGE == 0 for found in gatherable(maps) for bound in found)


def test_where_an_administrator_wants_no_huge_pages_there_are_none(monkeypatch, tmp_path: Path):
    setting = tmp_path / "enabled"
    setting.write_text("always madvise [never]\n")
    monkeypatch.setattr(fork_memory, "_SETTING", setting)
    assert fork_memory.use_huge_pages() == 0


@pytest.mark.parametrize("setting", ["/nowhere", "/sys/kernel/mm/transparent_hugepage/enabled"])
def test_what_lies_in_memory_is_the_same_when_it_was_gathered(setting: str):
    code = f"""
from pathlib import Path
import numpy
from headrace_worker.process import fork_memory as memory
memory._SETTING = Path({setting!r})
rows = [str(number) * 10 for number in range(200_000)]
array = numpy.arange(4_000_000)
gathered = memory.use_huge_pages()
assert rows == [str(number) * 10 for number in range(200_000)]
assert (array == numpy.arange(4_000_000)).all()
print(gathered)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert int(done.stdout) % HUGE == 0
    if setting == "/nowhere":
        assert int(done.stdout) == 0
