"""Scenarios of bulk runs: kills, rows that kill their process, a changed file, a full disk."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from headrace import Client
from headrace.wire.bulk import job_of_plan
from tests.chaos.bulk_model import KEY, MODEL
from tests.chaos.bulk_site import (
    CHUNK_ROWS,
    RUN_SECONDS,
    TABLE,
    BulkSite,
    ReceiptWatch,
    called_after_receipt,
    count_again,
    read_parts,
    write_file,
)
from tests.chaos.environment import Environment
from tests.chaos.kill_faults import wait_for_two_ready
from tests.chaos.scenario import scenario
from tests.chaos.workers import ROOT, Worker

#: Files of the table, seconds of a call, and workers.
_FILES, _SECONDS, _WORKERS = 40, 0.15, 3
#: Single rows a second beside the run.
_LOAD = {"rate": 5.0, "longest": 0.02}
#: Kills of a run, and pool processes of a worker.
_KILLS_PER_RUN, _PROCESSES = 10, 2
#: The faults of a run, by how often they happen.
_FAULTS = {"worker": 6, "client": 2, "Redis": 2}
#: Bytes of the small disk: it holds the output, and not much more.
_DISK_BYTES = 4 * 2**20


@scenario(23, "bulk run: kills", long=100, short=4)
def bulk_killed(env: Environment) -> None:
    """Workers, the client, the worker with the plan, and Redis are killed (SIGKILL) while bulk runs go on."""
    site = BulkSite(env, _FILES, seconds=_SECONDS)
    names = [f"run-{number}" for number in range(max(1, env.repetitions // _KILLS_PER_RUN))]
    expected = site.undisturbed(names)
    env.start_workers(_WORKERS, **site.settings())
    kills: Counter[str] = Counter()
    again = 0
    with env.load(**_LOAD):
        for number, name in enumerate(names):
            site.calls_file.unlink(missing_ok=True)
            count = env.repetitions * (number + 1) // len(names) - env.repetitions * number // len(names)
            with ReceiptWatch(env, name) as watch:
                in_flight = _Killer(env, site, name, kills).run(count)
            env.expect(site.progress(name).state == "success", f"{name} ended as {site.progress(name)}")
            site.expect_equal(name, expected[name])
            site.expect_rows(name)
            calls = site.calls()
            if late := called_after_receipt(calls, watch.read_at):
                env.expect(False, f"chunks of {name} were predicted again after their receipt: {late}")
            again += (extra := count_again(calls))
            env.expect(extra <= in_flight, f"{extra} chunks of {name} predicted again, {in_flight} were in flight")
    described = ", ".join(f"{count} of {title}" for title, count in sorted(kills.items()))
    env.notes.append(f"{kills.total()} kills in {len(names)} runs: {described}; {again} chunks predicted again")


class _Killer:
    """The client of a run, and the kills while it goes on. `kills` counts them by victim."""

    def __init__(self, env: Environment, site: BulkSite, name: str, kills: Counter[str]) -> None:
        self._env, self._site, self._name, self._kills = env, site, name, kills
        self._client = self._start_client()

    def _start_client(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "tests.chaos.bulk_client", self._env.url, self._name, TABLE]
        with (self._env.folder / "bulk-client.log").open("ab") as log:
            return subprocess.Popen([*command, f"out:{self._name}"], cwd=ROOT, stdout=log, stderr=log)

    def run(self, count: int) -> int:
        """Kill `count` times while the run goes on, and wait for its end.

        Return the chunks that may have been in flight at the kills.
        """
        env, in_flight = self._env, 0
        faults = [fault for fault, weight in _FAULTS.items() for _ in range(weight)]
        try:
            env.wait(lambda: self._site.exists(self._name), "the submission of the run", 30)
            for number in range(count):
                if self._site.has_ended(self._name):
                    env.notes.append(f"{self._name} ended after {number} of {count} kills")
                    break
                # The first kill hits the worker with the plan, before or while it plans.
                fault = "plan" if number == 0 else env.random.choice(faults)
                in_flight += self._kill(fault)
                self._kills[fault] += 1
                time.sleep(env.random.uniform(0.1, 0.8))
            env.wait(lambda: self._site.has_ended(self._name), f"the end of {self._name}", RUN_SECONDS)
            code = self._client.wait(30)
            env.expect(code == 0, f"the client of {self._name} ended with {code}")
        finally:
            self._client.kill()
            self._client.wait()
        return in_flight

    def _kill(self, fault: str) -> int:
        """Kill; return the chunks that may have been in flight."""
        env = self._env
        if fault == "client":
            self._client.kill()
            self._client.wait()
            self._client = self._start_client()
            return 0
        if fault == "Redis":
            env.redis.kill()
            time.sleep(env.random.uniform(0, 1))
            env.redis.start()
            env.redis_recovered_at.append(time.monotonic())
            # No outcome could be published: whatever ran may run again.
            return _PROCESSES * len(env.workers)
        ready = wait_for_two_ready(env)  # one is there to take over, as the promise of seconds assumes
        env.kill(env.random.choice((fault == "plan" and self._holders_of_plan()) or ready))
        env.start_worker(**self._site.settings())
        return _PROCESSES

    def _holders_of_plan(self) -> list[Worker]:
        """Return the worker that has claimed the plan; none where the run is planned."""
        env, plan = self._env, job_of_plan(self._name, 1).encode()

        def holders() -> list[Worker]:
            return [
                worker for worker in env.ready_workers if plan in b"".join(env.system.held(env.server, worker))
            ]

        env.holds_within(lambda: holders() or self._site.progress(self._name).state != "planning", 5)
        return holders()


@scenario(24, "bulk run: rows that kill their process", long=1, short=1)
def bulk_poison(env: Environment) -> None:
    """Three rows kill the process that predicts them. They fail alone, and all others are predicted."""
    kill, fault = int(signal.SIGKILL), int(signal.SIGSEGV)
    poison = {7 * CHUNK_ROWS + 3: kill, 7 * CHUNK_ROWS + 90: fault, 11 * CHUNK_ROWS: kill}
    site = BulkSite(env, 16, seconds=0.0, deeds=poison)
    env.start_workers(1, **site.settings())
    env.submit(env.jobs(5))
    started = time.monotonic()
    with Client(env.url) as client:
        run = client.bulk(MODEL, TABLE, "out:poisoned", name="poisoned", key=KEY)
        site.wait(run)
        reasons = run.failures().reasons
    progress = site.progress("poisoned")
    env.expect(progress.state == "success", f"the run ended as {progress}")
    env.expect(reasons.get("crash") == len(poison), f"the errors by reason are {reasons}")
    site.expect_rows("poisoned", failed=list(poison))
    env.notes.append(f"{len(poison)} rows failed after {time.monotonic() - started:.0f} s")


@scenario(25, "bulk run: a changed file", long=1, short=1, resumed=True)
def bulk_changed(env: Environment) -> None:
    """A file is written anew while the run goes on. Its chunk is refused; with the file back, it is resumed."""
    site = BulkSite(env, 24, seconds=0.1)
    expected = site.undisturbed(["changed"])["changed"]
    # The last file is in no chunk that runs early.
    victim, backup = site.table / "0023.parquet", env.folder / "backup.parquet"
    env.start_workers(1, **site.settings())
    env.submit(env.jobs(5))
    with Client(env.url) as client:
        run = client.bulk(MODEL, TABLE, "out:changed", name="changed", key=KEY)
        env.wait(lambda: site.progress("changed").chunks_done >= 2, "two chunks")
        victim.rename(backup)
        write_file(victim, 100 * CHUNK_ROWS, {})
        progress = site.wait(run)
        env.expect(progress.state == "failure", f"the run with a changed file ended as {progress}")
        env.expect(progress.chunks_done == 23, f"{progress.chunks_done} of 24 chunks ended")
        env.expect(
            all(key < 100 * CHUNK_ROWS for key in _keys_of(site.outputs / "changed")),
            "a row of the changed file is in the output",
        )
        backup.replace(victim)
        run.resume()
        site.wait(run)
    env.expect(site.progress("changed").state == "success", f"the run ended as {site.progress('changed')}")
    site.expect_equal("changed", expected)
    site.expect_rows("changed")
    env.expect(count_again(site.calls()) == 0, "chunks with a receipt were predicted again")


def _keys_of(folder: Path) -> list[int]:
    keys: list[int] = read_parts(folder)[KEY].to_pylist()
    return keys


@scenario(26, "bulk run: a full disk", long=1, short=1, resumed=True, scratch=_DISK_BYTES)
def bulk_disk_full(env: Environment) -> None:
    """The disk of the output is full during a run, and there is room again later. The run ends, or is resumed."""
    site = BulkSite(env, 24, seconds=0.1)
    expected = site.undisturbed(["full"])["full"]
    filler = env.scratch / "filler"
    env.start_workers(1, **site.settings())
    env.submit(env.jobs(5))
    with Client(env.url) as client:
        run = client.bulk(MODEL, TABLE, "out:full", name="full", key=KEY)
        env.wait(lambda: site.progress("full").chunks_done >= 2, "two chunks")
        _fill(filler)
        before = site.progress("full").chunks_done
        time.sleep(3)
        stuck = site.progress("full")
        env.expect(stuck.chunks_done <= before + _PROCESSES, f"chunks ended on a full disk: {stuck}")
        filler.unlink()
        if site.wait(run).state == "failure":
            env.notes.append("the run failed, and was resumed")
            run.resume()
            site.wait(run)
    env.expect(site.progress("full").state == "success", f"the run ended as {site.progress('full')}")
    site.expect_equal("full", expected)
    site.expect_rows("full")


def _fill(filler: Path) -> None:
    with filler.open("wb", buffering=0) as file:
        for size in (65536, 4096):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                continue
