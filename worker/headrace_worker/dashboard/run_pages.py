"""The pages of bulk runs: a list with the progress of each, and one run with its failures, cancel and resume."""

from __future__ import annotations

from typing import Any, Self
from urllib.parse import urlencode

import msgspec

from headrace.bulk import ChunkFailure, cancel_run, failures_of, list_runs, read_run, resume_run
from headrace.connection.commands import Operation
from headrace.connection.server_time import READ_SERVER_TIME, decode_server_time
from headrace.errors import InvalidInput
from headrace.inspection.run_pace import RunPace, measure_pace
from headrace.text import format_duration, plural
from headrace.wire.bulk import RunProgress, job_of_finish, job_of_plan
from headrace.wire.dead_letter import DeadLetter
from headrace.wire.keys import Keys
from headrace_worker.dashboard.dead_letter_pages import read_dead_letters
from headrace_worker.dashboard.page import Page, log

#: Runs on a page, and failed chunks on the page of a run.
PAGE_SIZE = 50
#: Bootstrap's colours of the states; all others are those of runs that go on.
_COLOURS = {"success": "success", "failure": "danger", "cancelled": "secondary"}


class ShownRun(msgspec.Struct, frozen=True, kw_only=True):
    """One run at one moment."""

    name: str
    model: str
    #: The version that the plan job has chosen; before, that of the request.
    version: str | None
    progress: RunProgress
    pace: RunPace

    @classmethod
    def at_moment(cls, progress: RunProgress, now_ms: int, **fields: Any) -> Self:
        """Return a run with its pace at a moment of the server's clock; `fields` are further ones."""
        run, pace = progress.run, measure_pace(progress, now_ms)
        version = progress.version or run.version
        return cls(name=run.name, model=run.model, version=version, progress=progress, pace=pace, **fields)


class RunPage(msgspec.Struct, frozen=True, kw_only=True):
    """A page of the list."""

    runs: tuple[ShownRun, ...]
    #: Position at which the next page begins, counted from the newest run; None for the last page.
    next: int | None


class RunWithFailures(ShownRun, frozen=True, kw_only=True):
    """One run with its failures."""

    #: Failed rows by reason, most first.
    reasons: dict[str, int]
    #: The first chunks that failed as a whole.
    failed_chunks: tuple[ChunkFailure, ...]
    #: The dead letters of these chunks, and of the plan and finish jobs.
    dead_letters: tuple[DeadLetter, ...]


def read_page(keys: Keys, start: int) -> Operation[RunPage]:
    """Read a page of the runs, from position `start` on, 0 being the newest."""
    runs = yield from list_runs(keys, limit=start + PAGE_SIZE + 1)
    now_ms = decode_server_time((yield READ_SERVER_TIME))
    shown = tuple(ShownRun.at_moment(progress, now_ms) for progress in runs[start : start + PAGE_SIZE])
    return RunPage(runs=shown, next=start + PAGE_SIZE if len(runs) > start + PAGE_SIZE else None)


def read_with_failures(keys: Keys, name: str) -> Operation[RunWithFailures]:
    """Read a run with its failures. Raises InvalidInput, UnknownRun and StoredDataError."""
    progress = yield from read_run(keys, name)
    now_ms = decode_server_time((yield READ_SERVER_TIME))
    reasons: dict[str, int] = {}
    chunks: tuple[ChunkFailure, ...] = ()
    if progress.rows_failed or progress.chunks_failed:
        failures = yield from failures_of(keys, name)
        reasons, chunks = failures.reasons, failures.chunks[:PAGE_SIZE]
    jobs = [chunk.job for chunk in chunks]
    if progress.state != "success":
        jobs += [job_of_plan(name, progress.round), job_of_finish(name, progress.round)]
    letters = yield from read_dead_letters(keys, jobs)
    return RunWithFailures.at_moment(
        progress, now_ms, reasons=reasons, failed_chunks=chunks, dead_letters=tuple(letters)
    )


def colour_of(progress: RunProgress) -> str:
    """Return Bootstrap's name of the colour of a run's state."""
    return _COLOURS.get(progress.state, "primary")


_FORMATS = {"colour_of": colour_of, "time_text": format_duration, "plural": plural}


class Runs(Page):
    """The list of runs."""

    async def get(self) -> None:
        """Show a page of the list."""
        content = await self.run_operation(read_page(self.application.session.keys, self.query_number("start")))
        self.answer("runs.html", content, **_FORMATS)


class RunDetail(Page):
    """One run, with cancel and resume."""

    async def get(self, name: str) -> None:
        """Show the run `name`. Raises InvalidInput, UnknownRun."""
        content = await self.run_operation(read_with_failures(self.application.session.keys, name))
        self.answer("run.html", content, action=self.query_text("action"), **_FORMATS)

    async def post(self, name: str) -> None:
        """Cancel or resume the run. Raises InvalidInput, UnknownRun."""
        self.require_actions()
        session, action = self.application.session, self.get_body_argument("action", "")
        if action == "cancel":
            operation = cancel_run(session.keys, name)
        elif action == "resume":
            operation = resume_run(session.keys, name, session.settings, session.job_keys)
        else:
            raise InvalidInput("`action` must be cancel or resume")
        progress = await self.run_operation(operation)
        log.info("%s of the bulk run %s by %s; it is %s now", action, name, self.user, progress.state)
        self.redirect(f"{self.reverse_url('run', name)}?{urlencode({'action': action})}", status=303)
