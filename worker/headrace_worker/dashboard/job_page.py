"""The page of one job: its history as `headrace explain` tells it, in any state, with cancel and replay."""

from __future__ import annotations

from urllib.parse import quote, urlencode

import msgspec
from flower.views.tasks import TaskView
from tornado import web

from headrace.bulk import read_run
from headrace.clock import from_unix_ms, utc_now
from headrace.connection.commands import Operation
from headrace.errors import InvalidInput, UnknownRun
from headrace.inspection.timeline import Step, Timeline
from headrace.results.cancellation import cancel
from headrace.wire.bulk import BULK_TASK
from headrace.wire.dead_letter import DeadLetter
from headrace.wire.names import check_job_id
from headrace.wire.queues import TASK
from headrace_worker.dashboard.dead_letter_pages import read_dead_letters
from headrace_worker.dashboard.page import Page, log

#: Other jobs of the claim that the page names.
_MATES = 50
#: Bootstrap's colours of the states; all others are those of jobs that have no outcome yet.
_COLOURS = {"success": "success", "failure": "danger", "cancelled": "secondary", "expired": "secondary"}
_FINAL_STATES = frozenset({"success", "failure", "cancelled", "expired", "unknown", "lost"})


class JobHistory(msgspec.Struct, frozen=True, kw_only=True):
    """One job at one moment."""

    timeline: Timeline
    #: None where the job is no dead letter.
    dead_letter: DeadLetter | None
    #: The other jobs of its last claim, as far as Flower has received their events.
    claimed_with: tuple[str, ...] = ()

    @property
    def claim_size(self) -> int | None:
        """The number of jobs in its last claim; None where it was not claimed."""
        sizes = [step.claim_size for step in self.timeline.steps if step.claim_size]
        return sizes[-1] if sizes else None

    @property
    def is_over(self) -> bool:
        """True if nothing more happens to the job by itself."""
        return self.timeline.status in _FINAL_STATES


def format_step(step: Step) -> str:
    """Return a step as a sentence, with the moment that a delayed job is due."""
    if step.kind == "delayed" and step.due_ms is not None:
        return f"delayed until {from_unix_ms(step.due_ms):%Y-%m-%d %H:%M:%S} UTC"
    return step.text


class JobSearch(Page):
    """The search box: leads to the page of the id that was entered."""

    def get(self) -> None:
        """Redirect to the job's page."""
        job = (self.query_text("id") or "").strip()
        self.redirect(self.reverse_url("job", quote(job, safe="")) if job else self.reverse_url("tasks"))


class JobDetail(Page):
    """One job, with cancel and replay."""

    async def get(self, job: str) -> None:
        """Show the job. Raises InvalidInput. The name of a bulk run leads to the page of the run."""
        check_job_id(job)
        session = self.application.session
        timeline = await self.run_operation(session.inspector.explain(job))
        # Metadata is the submitter's own text, as a payload is; the page of a dead letter has it.
        timeline = msgspec.structs.replace(timeline, metadata=None)
        if timeline.status == "unknown":
            if not self.is_json and await self._is_run(job):
                self.redirect(self.reverse_url("run", job))
                return
            self.set_status(404)
        letters = await self.run_operation(read_dead_letters(session.keys, [job]))
        history = JobHistory(
            timeline=timeline,
            dead_letter=msgspec.structs.replace(letters[0], metadata=None) if letters else None,
            claimed_with=tuple(self._find_claim_mates(job)),
        )
        self.answer(
            "job.html",
            history,
            timeline=timeline,
            colour=_COLOURS.get(timeline.status, "primary"),
            trace_url=self._trace_url(timeline.trace),
            format_step=format_step,
            action=self.query_text("action"),
        )

    async def post(self, job: str) -> None:
        """Cancel or replay the job. Raises InvalidInput, UnknownModel."""
        self.require_actions()
        check_job_id(job)
        session, action = self.application.session, self.get_body_argument("action", "")
        if action == "cancel":
            ttl = session.settings.result_ttl
            operation: Operation[bool | None] = cancel(session.keys, job, ttl=ttl, now=utc_now())
            is_cancelled = await self.run_operation(operation)
            result = {True: "cancelled", False: "ended", None: "requested"}[is_cancelled]
        elif action == "replay":
            version = self.get_body_argument("version", "") or None
            replay = self.application.dead_letters.replay(
                {"ids": [job]}, utc_now(), version=version, rate=None, dry_run=False, every=False
            )
            done = (await self.run_to_the_end(replay)).done
            result = "replayed" if done else "unchanged"
        else:
            raise InvalidInput("`action` must be cancel or replay")
        log.info("%s of the job %s by %s: %s", action, job, self.user, result)
        self.redirect(
            f"{self.reverse_url('job', quote(job, safe=''))}?{urlencode({'action': result})}", status=303
        )

    async def _is_run(self, name: str) -> bool:
        try:
            await self.run_operation(read_run(self.application.session.keys, name))
        except (UnknownRun, InvalidInput):
            return False
        return True

    def _find_claim_mates(self, job: str) -> list[str]:
        mates: list[str] = self.application.events.state.search_engine.find_started_with(job)
        return mates[:_MATES]

    def _trace_url(self, trace: str | None) -> str | None:
        template = self.application.trace_url
        return template.replace("{trace}", trace) if template and trace else None


class JobOrTask(TaskView):  # type: ignore[misc]  # flower has no types
    """Flower's page of a task: a job, or an id that Flower does not know, leads to the page of the job."""

    @web.authenticated
    def get(self, task_id: str) -> None:
        """Show an ordinary Celery task, or redirect."""
        task = self.application.events.state.tasks.get(task_id)
        if task is not None and task.name and task.name not in {TASK, BULK_TASK}:
            super().get(task_id)
            return
        self.redirect(self.reverse_url("job", quote(task_id, safe="")))
