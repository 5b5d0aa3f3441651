"""A pool process has a memory limit, and is interrupted only while a model runs. Each test forks one."""

from __future__ import annotations

import subprocess
import sys

import pytest

from headrace.errors import SettingError
from headrace_worker.execution.pool_process import check_memory_limit, compute_max_resident_kilobytes

PREAMBLE = """
import os, signal
from billiard.exceptions import SoftTimeLimitExceeded
from headrace_worker.execution.pool_process import allow_interrupts, handle_claim_signals
from headrace_worker.execution.pool_process import is_short_of_memory, isolate

def interrupted(*_):
    raise SoftTimeLimitExceeded

def soft_limit():
    os.kill(os.getpid(), signal.SIGUSR1)

signal.signal(signal.SIGUSR1, interrupted)
isolate({limit})
"""


def run_in_process(script: str, limit: int = 0) -> tuple[int, str]:
    """Return the exit code and the output of a script that runs as a pool process, with a limit in bytes."""
    done = subprocess.run(
        [sys.executable, "-c", PREAMBLE.replace("{limit}", str(limit)) + script],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.returncode, done.stdout


def test_a_soft_limit_interrupts_a_model_and_nothing_else() -> None:
    script = """
with handle_claim_signals():
    soft_limit()
    print("opened")
    try:
        with allow_interrupts():
            print("never")
    except SoftTimeLimitExceeded:
        print("interrupted")
    soft_limit()
    print("published")
"""
    assert run_in_process(script) == (0, "opened\ninterrupted\npublished\n")


def test_a_soft_limit_that_arrives_late_does_not_interrupt_the_next_claim() -> None:
    script = """
soft_limit()
with handle_claim_signals():
    with allow_interrupts():
        print("predicted")
"""
    assert run_in_process(script) == (0, "predicted\n")


def test_a_terminated_process_first_finishes_its_claim() -> None:
    script = """
with handle_claim_signals():
    os.kill(os.getpid(), signal.SIGTERM)
    print("published", flush=True)
os.kill(os.getpid(), signal.SIGTERM)
print("never", flush=True)
"""
    assert run_in_process(script) == (-15, "published\n")


def test_a_process_that_runs_out_of_memory_outside_of_a_model_ends_at_once() -> None:
    script = """
try:
    with handle_claim_signals():
        raise MemoryError
finally:
    print("never", flush=True)
"""
    assert run_in_process(script) == (71, "")


def test_memory_is_limited_and_memory_in_use_is_measured() -> None:
    script = """
print(is_short_of_memory())
try:
    bytearray(1 << 40)
except MemoryError:
    print(is_short_of_memory())
held = bytearray(900_000_000)
print(is_short_of_memory())
"""
    assert run_in_process(script, limit=1_000_000_000) == (0, "False\nFalse\nTrue\n")
    assert run_in_process(script.replace("1 << 40", "1 << 30"))[1] == "False\nFalse\n"


def test_a_limit_that_leaves_no_memory_for_jobs_is_refused() -> None:
    check_memory_limit(0)
    check_memory_limit(1 << 40)
    with pytest.raises(SettingError, match="HEADRACE_MEMORY_LIMIT cannot be used: with its models loaded"):
        check_memory_limit(1_000_000)
    assert compute_max_resident_kilobytes(0) is None
    assert compute_max_resident_kilobytes(1 << 30) == 838_860
