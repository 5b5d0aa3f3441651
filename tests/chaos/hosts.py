"""Scenarios in which a worker's time is out of step: stopped for a while, long at work, with a clock hours off."""

from __future__ import annotations

import shutil
import signal
import subprocess
import time
from pathlib import Path

from tests.chaos import model
from tests.chaos.arena import Arena
from tests.chaos.disk import LeftOut
from tests.chaos.kills import CARRIED
from tests.chaos.scenario import scenario

#: Seconds the clocks of two workers are off by.
_SKEWS = (6 * 3600, -6 * 3600)


@scenario(9, "a worker stopped for longer than its lease", long=6, control=3)
def worker_stopped(arena: Arena) -> None:
    """All processes of a worker that runs jobs are stopped (SIGSTOP) for two leases, and go on (SIGCONT)."""
    arena.start_workers(2)
    with arena.load(**CARRIED):
        for _ in range(arena.times):
            victim = arena.chance.choice(arena.ready)
            arena.wait(lambda victim=victim: arena.held(victim), "a claim")
            victim.signal_all(signal.SIGSTOP)
            arena.record_kill(arena.held(victim))
            time.sleep(2 * arena.lease)
            victim.signal_all(signal.SIGCONT)
            time.sleep(1)


@scenario(10, "a job of ten leases", long=1, control=1)
def long_job(arena: Arena) -> None:
    """A job that computes for ten leases, beside others: it keeps its lease and runs once."""
    arena.start_workers(2)
    (long,) = arena.jobs(1, do=model.SLEEP, amount=10 * arena.lease)
    with arena.load(rate=20):
        arena.submit([long])
        arena.can_wait(lambda: arena.outcome(long.id), 15 * arena.lease)
    runs = sum(run.job == long.id for run in arena.runs())
    arena.expect(runs == 1, f"the job of ten leases ran {runs} times")
    arena.notes.append(f"the long job ran {runs} time{'s' * (runs != 1)}")


@scenario(17, "clocks hours off", long=1)
def clocks_off(arena: Arena) -> None:
    """The clock of one worker is six hours ahead, of another six hours behind.

    Jobs expire, and delayed ones begin, when they should by the server's clock, and no lease is lost.
    """
    library = _clock(arena.folder)
    for skew in _SKEWS:
        arena.start_apart(LD_PRELOAD=str(library), CHAOS_CLOCK_OFF=str(skew))
    arena.start_workers(1)
    with arena.load(rate=60, longest=0.1):
        time.sleep(8)
    ran = {run.pid for run in arena.runs()}
    arena.expect(all(worker.pool & ran for worker in arena.workers), "a worker ran nothing")
    lost = [worker.name for worker in arena.workers if "was lost" in worker.log.read_text()]
    arena.expect(not lost, f"leases were lost, says {', '.join(lost)}")


def _clock(folder: Path) -> Path:
    """The library that sets a process's clock off, compiled."""
    compiler = shutil.which("cc")
    if compiler is None:
        raise LeftOut("a clock that is off takes a C compiler; on Debian: apt-get install gcc libc6-dev")
    library = folder / "clock.so"
    source = Path(__file__).parent / "clock.c"
    made = subprocess.run(
        [compiler, "-shared", "-fPIC", "-o", library, source], capture_output=True, text=True, timeout=60
    )
    if made.returncode:
        raise LeftOut(f"the clock cannot be compiled here: {made.stderr[-300:]}")
    return library
