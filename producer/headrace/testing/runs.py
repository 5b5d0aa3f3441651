"""The bulk runs of an `InMemoryClient`. They read and write no file: a run ends as a success of 0 rows."""

from __future__ import annotations

from collections.abc import Callable, Container

import msgspec

from headrace.bulk.explain import RunExplanation
from headrace.bulk.operations import is_over, verify_same_arguments
from headrace.bulk.progress import RunFailures
from headrace.bulk.wait import run_timeout, verify_success
from headrace.client.common import check_timeout
from headrace.clock import to_unix_ms, utc_now
from headrace.errors import UnknownRun
from headrace.wire.bulk import Run, RunProgress
from headrace.wire.bulk_checks import check_run_name


class InMemoryRuns:
    """The runs by name.

    A run ends when it is submitted if `at_once` is true, else with `finish_waiting`. Those of models in `paused`
    wait until these are resumed.
    """

    def __init__(self, paused: Container[str], *, at_once: bool) -> None:
        self._paused, self._at_once = paused, at_once
        self._runs: dict[str, RunProgress] = {}

    def submit(self, run: Run) -> None:
        """Submit a run, or resume the run of this name. Raises RunConflict."""
        earlier = self._runs.get(run.name)
        if earlier is not None:
            verify_same_arguments(earlier.run, run)
            if earlier.state == "cancelled":
                self.resume(run.name)
            return
        self._runs[run.name] = RunProgress(run=run, state="planning", submitted_ms=_now_ms())
        if self._at_once:
            self.finish_waiting()

    def read(self, name: str) -> RunProgress:
        """Return what is known of a run. Raises UnknownRun."""
        if name not in self._runs:
            raise UnknownRun(f"there is no bulk run {name!r}")
        return self._runs[name]

    def list(self, model: str | None, limit: int) -> list[RunProgress]:
        """Return the newest runs, newest first."""
        runs = [run for run in reversed(self._runs.values()) if model in {None, run.run.model}]
        return runs[:limit]

    def cancel(self, name: str) -> RunProgress:
        """Cancel a run unless it has ended."""
        if not is_over(self.read(name)):
            self._change(name, state="cancelled", ended_ms=_now_ms())
        return self._runs[name]

    def resume(self, name: str) -> RunProgress:
        """Continue a run that was cancelled."""
        progress = self.read(name)
        if progress.state == "cancelled":
            self._change(name, state="planning", ended_ms=None, round=progress.round + 1)
            if self._at_once:
                self.finish_waiting()
        return self._runs[name]

    def finish_waiting(self) -> None:
        """End the runs that wait as a success of 0 rows, except those of paused models."""
        moment = _now_ms()
        for name, progress in self._runs.items():
            if not is_over(progress) and progress.run.model not in self._paused:
                self._change(name, state="success", started_ms=moment, ended_ms=moment, chunks=0, rows=0)

    def _change(self, name: str, **fields: object) -> None:
        self._runs[name] = msgspec.structs.replace(self._runs[name], **fields)


class InMemoryRun:
    """A bulk run of an InMemoryClient, with the methods of `headrace.RunHandle`. It never waits."""

    def __init__(self, runs: InMemoryRuns, name: str) -> None:
        self.name = check_run_name(name)
        self._runs = runs

    def status(self, timeout: float | None = None) -> RunProgress:
        """Return what is known of the run; see `RunHandle.status`."""
        check_timeout(timeout)
        return self._runs.read(self.name)

    def wait(
        self, timeout: float | None = None, *, on_progress: Callable[[RunProgress], None] | None = None
    ) -> RunProgress:
        """Return the progress of the run; see `RunHandle.wait`. Raises ResultTimeout if it has not ended."""
        timeout = check_timeout(timeout)
        progress = self.status()
        if on_progress is not None:
            on_progress(progress)
        if not is_over(progress):
            raise run_timeout(self.name, progress, timeout or 0.0)
        return verify_success(progress)

    def cancel(self, timeout: float | None = None) -> bool:
        """Cancel the run; see `RunHandle.cancel`."""
        check_timeout(timeout)
        return self._runs.cancel(self.name).state == "cancelled"

    def resume(self, timeout: float | None = None) -> bool:
        """Continue the run; see `RunHandle.resume`."""
        check_timeout(timeout)
        was_success = self.status().state == "success"
        self._runs.resume(self.name)
        return not was_success

    def failures(self, timeout: float | None = None) -> RunFailures:
        """Return the failures of the run, of which there are none; see `RunHandle.failures`."""
        check_timeout(timeout)
        self.status()
        return RunFailures(reasons={}, chunks=())

    def explain(self, timeout: float | None = None) -> RunExplanation:
        """Return what is known of the run; see `RunHandle.explain`."""
        check_timeout(timeout)
        return RunExplanation(progress=self.status())

    def __repr__(self) -> str:
        return f"<InMemoryRun {self.name}>"


def _now_ms() -> int:
    return to_unix_ms(utc_now())
