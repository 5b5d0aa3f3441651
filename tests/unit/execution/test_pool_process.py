"""What holds in a pool process, each time in one of its own: limits of memory, and when it may be interrupted."""

from __future__ import annotations

import subprocess
import sys

import pytest

from headrace.errors import SettingError
from headrace_worker.execution.pool_process import check_memory_limit, max_resident_kilobytes

BEGIN = """
import os, signal
from billiard.exceptions import SoftTimeLimitExceeded
from headrace_worker.execution.pool_process import interruptible, is_short_of_memory, isolate, claim_signals

def interrupted(*_):
    raise SoftTimeLimitExceeded

def soft_limit():
    os.kill(os.getpid(), signal.SIGUSR1)

signal.signal(signal.SIGUSR1, interrupted)
isolate({limit})
"""


def in_a_process(script: str, limit: int = 0) -> tuple[int, str]:
    """Its exit code, and what it printed."""
    done = subprocess.run(
        [sys.executable, "-c", BEGIN.replace("{limit}", str(limit)) + script],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.returncode, done.stdout


def test_a_soft_limit_interrupts_a_model_and_nothing_else() -> None:
    script = """
with claim_signals():
    soft_limit()
    print("opened")
    try:
        with interruptible():
            print("never")
    except SoftTimeLimitExceeded:
        print("interrupted")
    soft_limit()
    print("published")
"""
    assert in_a_process(script) == (0, "opened\ninterrupted\npublished\n")


def test_a_soft_limit_that_comes_late_is_not_the_next_claims() -> None:
    script = """
soft_limit()
with claim_signals():
    with interruptible():
        print("predicted")
"""
    assert in_a_process(script) == (0, "predicted\n")


def test_a_process_told_to_end_first_finishes_its_claim() -> None:
    script = """
with claim_signals():
    os.kill(os.getpid(), signal.SIGTERM)
    print("published", flush=True)
os.kill(os.getpid(), signal.SIGTERM)
print("never", flush=True)
"""
    assert in_a_process(script) == (-15, "published\n")


def test_a_process_without_memory_outside_of_a_model_ends_at_once() -> None:
    script = """
try:
    with claim_signals():
        raise MemoryError
finally:
    print("never", flush=True)
"""
    assert in_a_process(script) == (71, "")


def test_memory_has_a_limit_and_what_is_kept_shows() -> None:
    script = """
print(is_short_of_memory())
try:
    bytearray(1 << 40)
except MemoryError:
    print(is_short_of_memory())
kept = bytearray(900_000_000)
print(is_short_of_memory())
"""
    assert in_a_process(script, limit=1_000_000_000) == (0, "False\nFalse\nTrue\n")
    assert in_a_process(script.replace("1 << 40", "1 << 30"))[1] == "False\nFalse\n"


def test_a_limit_that_leaves_no_room_for_jobs_is_refused() -> None:
    check_memory_limit(0)
    check_memory_limit(1 << 40)
    with pytest.raises(SettingError, match="HEADRACE_MEMORY_LIMIT cannot be used: with its models loaded"):
        check_memory_limit(1_000_000)
    assert max_resident_kilobytes(0) is None
    assert max_resident_kilobytes(1 << 30) == 838_860
