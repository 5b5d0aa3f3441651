"""Before it forks, the main process returns freed memory, and its data moves into huge pages unchanged."""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path

import pytest

from headrace_worker.process import fork_memory
from headrace_worker.process.fork_memory import HUGE_PAGE_BYTES, find_huge_page_ranges

#: Prints by how many megabytes freeze_heap() shrinks a process that freed every second of its blocks, as loading a
#: forest does.
FREEZE = """
from pathlib import Path
from headrace_worker.process import fork_memory

def megabytes():
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Rss:")) / 1024

blocks = [bytearray(100_000) for _ in range(1600)]
live = blocks[::2]
del blocks
before = megabytes()
fork_memory.freeze_heap()
print(before - megabytes())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other libraries do not keep freed memory")
def test_memory_that_was_freed_between_live_objects_is_returned() -> None:
    done = subprocess.run([sys.executable, "-c", FREEZE], capture_output=True, text=True, check=True, timeout=60)
    assert float(done.stdout) > 60


def test_only_a_process_s_own_data_moves_and_in_whole_huge_pages():
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
    ranges = list(find_huge_page_ranges(maps))
    assert ranges == [
        (0x555556000000, 0x555556600000),
        (0x7F0000200000, 0x7F0000A00000),
    ]
    assert all(bound % HUGE_PAGE_BYTES == 0 for bounds in ranges for bound in bounds)


def test_huge_pages_that_the_administrator_disabled_are_not_used(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    setting = tmp_path / "enabled"
    setting.write_text("always madvise [never]\n")
    monkeypatch.setattr(fork_memory, "_HUGE_PAGES_SETTING", setting)
    assert fork_memory.use_huge_pages() == 0


@pytest.mark.parametrize("setting", ["/nowhere", "/sys/kernel/mm/transparent_hugepage/enabled"])
def test_data_is_unchanged_in_huge_pages(setting: str):
    code = f"""
from pathlib import Path
import numpy
from headrace_worker.process import fork_memory
fork_memory._HUGE_PAGES_SETTING = Path({setting!r})
rows = [str(number) * 10 for number in range(200_000)]
array = numpy.arange(4_000_000)
moved = fork_memory.use_huge_pages()
assert rows == [str(number) * 10 for number in range(200_000)]
assert (array == numpy.arange(4_000_000)).all()
print(moved)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert int(done.stdout) % HUGE_PAGE_BYTES == 0
    if setting == "/nowhere":
        assert int(done.stdout) == 0
