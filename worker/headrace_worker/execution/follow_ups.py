"""The follow-ups of the outcome of a job: the tasks of `link`, `link_error` and `chain`, and its part of a chord.

    predict ─> [plan] ─> settle ─> publish ─> follow_up_sender

The follow-ups are planned before the outcome is published, with Celery's own code, so that the outcome can name
the tasks that follow. The plan is stored in the step that publishes the outcome. So it is carried out even if this
process is killed, and never without the outcome.

As with Celery: a success starts the callbacks and the next link of the chain. A failure starts the errbacks and
fails the further links. Both add the job's result to its chord, and so does the end of a job that was cancelled or
that expired, which starts nothing else.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import msgspec
from celery import states
from celery.app.task import Context
from celery.canvas import group, maybe_signature
from celery.exceptions import TaskRevokedError
from kombu.utils.json import loads

from headrace.errors import InvalidInput
from headrace.wire.attempts import REPLAY
from headrace.wire.canvas import Canvas
from headrace.wire.outcome import Cancelled, Expired, Failure, Outcome, OutcomeLinks, Success
from headrace.wire.queues import TASK
from headrace_worker.execution.canvas_app import CanvasApp, ChordPart
from headrace_worker.execution.claimed_job import ClaimedJob, JobResult
from headrace_worker.failures import make_failure
from headrace_worker.transport.follow_up_scripts import Writes
from headrace_worker.transport.publish_script import StoredFollowUps

log = logging.getLogger("headrace.claims")


class FollowUps(Writes, frozen=True, kw_only=True):
    """All that follows the outcome of one job, as it is stored until it is carried out."""

    #: Server's unix milliseconds.
    planned_ms: int
    #: True if messages to models are signed.
    signed: bool = False
    chord_parts: list[ChordPart] = []  # noqa: RUF012  # msgspec copies it

    @property
    def is_empty(self) -> bool:
        """True if nothing is to be done."""
        return not (self.messages or self.values or self.failures or self.chord_parts)

    def encode(self) -> bytes:
        """Return the follow-ups as JSON."""
        return msgspec.json.encode(self)


class ClaimFollowUps:
    """The follow-ups of the jobs of one claim. `now_ms` is the server's unix milliseconds."""

    def __init__(self, planner: FollowUpPlanner, now_ms: int) -> None:
        self._planner, self._now_ms = planner, now_ms
        #: What the outcomes say about the canvas of their jobs, by job id.
        self.links: dict[str, OutcomeLinks] = {}
        self.stored: list[StoredFollowUps] = []

    @property
    def members(self) -> list[bytes]:
        """The follow-ups that may have been stored."""
        members = [member for stored in self.stored for member in (stored.encoded, stored.if_cancelled)]
        return [member for member in members if member is not None]

    def plan_successes(self, results: Sequence[JobResult]) -> Sequence[JobResult]:
        """Plan what follows the jobs that succeeded, and return all results.

        A job whose follow-ups cannot be built fails. Most claims have no job with a canvas.
        """
        if all(result.claimed.canvas is None for result in results):
            return results
        return [self._plan_success(result) for result in results]

    def _plan_success(self, result: JobResult) -> JobResult:
        claimed, outcome = result.claimed, result.value
        if claimed.canvas is None or not isinstance(outcome, Success) or claimed.job.id in self.links:
            return result
        try:
            self._plan(claimed, outcome)
        except InvalidInput as error:
            return msgspec.structs.replace(result, value=make_failure(error, claimed.job))
        return result

    def plan_others(
        self, results: Iterable[JobResult], outcomes: Mapping[str, Outcome], cancelled: Iterable[ClaimedJob]
    ) -> None:
        """Plan what follows the jobs that did not succeed, and the jobs that were cancelled while they waited."""
        for claimed in (result.claimed for result in results if result.claimed.canvas is not None):
            outcome = outcomes.get(claimed.job.id)
            if outcome is None or claimed.job.id in self.links:
                continue
            try:
                self._plan(claimed, outcome)
            except InvalidInput as error:
                # The job has failed already. Its chord and its chain must still learn of it.
                log.error("the errbacks of the failed job %s cannot be sent: %s", claimed.job.id, error)  # noqa: TRY400
                canvas = msgspec.structs.replace(claimed.canvas or Canvas(), errbacks=[])
                with contextlib.suppress(InvalidInput):
                    self._plan(msgspec.structs.replace(claimed, canvas=canvas), outcome)
        for claimed in cancelled:
            if member := self._planner.plan_cancelled(claimed, self._now_ms):
                self.stored.append(StoredFollowUps(job="", encoded=member))

    def _plan(self, claimed: ClaimedJob, outcome: Outcome) -> None:
        links, member = self._planner.plan(claimed, outcome, self._now_ms)
        self.links[claimed.job.id] = links
        if_cancelled = self._planner.plan_cancelled(claimed, self._now_ms)
        if member or if_cancelled:
            self.stored.append(StoredFollowUps(job=claimed.job.id, encoded=member, if_cancelled=if_cancelled))


class FollowUpPlanner:
    """Plans what follows a job, with Celery's code. `make_app` returns the canvas app of this process."""

    def __init__(self, make_app: Callable[[], CanvasApp]) -> None:
        self._make_app = make_app

    def plan_cancelled(self, claimed: ClaimedJob, now_ms: int) -> bytes | None:
        """Plan what follows a job that was cancelled; None if nothing does."""
        if claimed.canvas is None or claimed.canvas.chord is None:
            return None
        return self.plan(claimed, Cancelled(job=claimed.job.id), now_ms)[1]

    def plan(self, claimed: ClaimedJob, outcome: Outcome, now_ms: int) -> tuple[OutcomeLinks, bytes | None]:
        """Plan what follows the outcome of a job with a canvas.

        Return the links of the outcome, and the encoded follow-ups, None if there are none. Raises InvalidInput if
        they cannot be built.
        """
        canvas = claimed.canvas or Canvas()
        links = OutcomeLinks(parent_id=canvas.parent_id, group_id=canvas.group)
        if not canvas.has_follow_ups:
            return links, None
        app, request = self._make_app(), _make_request(claimed.job.id, canvas)
        try:
            with app.record(request, sign=canvas.signed) as recording:
                _dispatch(app, request, canvas, outcome)
                children = app.backend.current_task_children(app.current_request)
        except InvalidInput:
            raise
        except Exception as error:  # noqa: BLE001  # whatever a client's signature makes Celery's code raise
            # The message of the error may quote an argument.
            raise InvalidInput(
                f"the tasks that follow the job cannot be built from their signatures: {type(error).__name__}"
            ) from None
        follow_ups = FollowUps(
            job=claimed.job.id,
            planned_ms=now_ms,
            signed=canvas.signed,
            messages=recording.messages,
            values=recording.values,
            deleted=recording.deleted,
            failures=recording.failures,
            chord_parts=recording.chord_parts,
            revived=_find_revived(claimed, canvas) if isinstance(outcome, Success) else [],
        )
        links = msgspec.structs.replace(links, children=children or [])
        return links, None if follow_ups.is_empty else follow_ups.encode()


def _dispatch(app: CanvasApp, request: Context, canvas: Canvas, outcome: Outcome) -> None:
    """Do as Celery's tracer does at the end of a task (`celery.app.trace`)."""
    backend = app.backend
    match outcome:
        case Success():
            result = msgspec.json.decode(msgspec.json.encode(outcome.prediction))
            _start_callbacks(app, request, result)
            if canvas.chord:
                backend.on_chord_part_return(request, states.SUCCESS, result)
        case Failure():
            error = _make_exception(outcome)
            if canvas.chord:
                backend.on_chord_part_return(request, states.FAILURE, error)
            backend._fail_chain(request.chain, error, outcome.traceback)  # noqa: SLF001  # there is no public way
            if canvas.errbacks:
                backend._call_task_errbacks(request, error, outcome.traceback)  # noqa: SLF001  # as above
        case Cancelled() | Expired():
            if canvas.chord:
                reason = "expired" if isinstance(outcome, Expired) else "revoked"
                backend.on_chord_part_return(request, states.REVOKED, TaskRevokedError(reason))


def _start_callbacks(app: CanvasApp, request: Context, result: Any) -> None:
    """Send the callbacks and the next link of the chain, each with the job's result."""
    ids: dict[str, Any] = {"parent_id": request.id, "root_id": request.root_id}
    further: Any = request.chain
    callbacks: list[Any] = [maybe_signature(callback, app=app) for callback in request.callbacks or ()]
    single = [callback for callback in callbacks if not isinstance(callback, group)]
    for callback in callbacks:
        if isinstance(callback, group) or len(callbacks) == 1:
            callback.apply_async((result,), **ids)
    if single and len(callbacks) > 1:
        group(single, app=app).apply_async((result,), **ids)
    if further:
        link: Any = maybe_signature(further[-1], app=app)
        link.apply_async((result,), chain=further[:-1], **ids)


def _make_request(job: str, canvas: Canvas) -> Context:
    # Celery's JSON has types that plain JSON has not, a date for instance.
    callbacks, errbacks, chain, chord = loads(
        msgspec.json.encode([canvas.callbacks, canvas.errbacks, canvas.chain, canvas.chord])
    )
    return Context(
        id=job,
        task=TASK,
        root_id=canvas.root_id or job,
        parent_id=canvas.parent_id,
        group=canvas.group,
        group_index=canvas.group_index,
        callbacks=callbacks,
        errbacks=errbacks,
        chain=chain,
        chord=chord,
        called_directly=False,
        delivery_info={},
    )


def _make_exception(failure: Failure) -> Exception:
    """Return an exception that Celery stores as the failure is stored. No code of the model's module runs."""
    exception: Exception = type(failure.error, (Exception,), {"__module__": failure.module})(failure.message)
    return exception


def _find_revived(claimed: ClaimedJob, canvas: Canvas) -> list[str]:
    """Return the tasks that failed with the job before it was replayed, and that can run now."""
    if not any(attempt.cause == REPLAY for attempt in claimed.attempts):
        return []
    ids = [link.get("options", {}).get("task_id") for link in canvas.chain]
    return [id_ for id_ in ids if isinstance(id_, str)]
