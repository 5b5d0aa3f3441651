"""What loading a model took and freed goes back to the system before the pool processes are forked."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

#: Blocks as those of a forest's trees, of which every second is kept.
_SCRIPT = """
from pathlib import Path
from headrace_worker.process import fork_memory as memory

def megabytes():
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Rss:")) / 1024

blocks = [bytearray(100_000) for _ in range(1600)]
kept = blocks[::2]
del blocks
before = megabytes()
memory.freeze_heap()
print(before - megabytes())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other libraries keep nothing back")
def test_what_was_freed_between_what_is_kept_goes_back() -> None:
    done = subprocess.run([sys.executable, "-c", _SCRIPT], capture_output=True, text=True, check=True, timeout=60)
    assert float(done.stdout) > 60
