"""The page of `headrace top` as lines. On a narrow terminal, the least important columns are left out."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

import click
import msgspec

from headrace.cli.json_objects import BulkRun, Queue
from headrace.cli.tables import Column, escape_unprintable, fit_columns, format_columns
from headrace.inspection.notices import NoticeState
from headrace.inspection.queues import QueueDepth
from headrace.inspection.run_pace import measure_pace
from headrace.monitor.activity import ErrorCount, ModelActivity, WorkerActivity
from headrace.monitor.overview import Overview
from headrace.terminal import escape_controls
from headrace.text import format_age, format_clock, format_duration, plural
from headrace.wire.bulk import RunProgress

#: Groups of failures shown, the most frequent first.
_MAX_ERRORS = 8
#: Bulk runs shown, the newest first.
_MAX_RUNS = 8


class TopPage(msgspec.Struct, frozen=True, kw_only=True):
    """Queues, workers, rates and failures at one moment."""

    #: The moment, unix time in seconds.
    unix_seconds: float
    queues: tuple[Queue, ...]
    #: Seconds that the oldest waiting job has waited, by model.
    oldest_wait_seconds: dict[str, float]
    #: The jobs of the last 10 seconds. Null: this user may not listen to events.
    models: tuple[ModelActivity, ...] | None
    workers: tuple[WorkerActivity, ...]
    errors: tuple[ErrorCount, ...]
    #: The bulk runs that go on or have just ended, the newest first. Null: this user may not read them.
    runs: tuple[BulkRun, ...] | None
    #: The number of dead letters. Null: this user may not count them.
    dead_letters: int | None
    #: The notices of outcomes. Null: this user may not read them.
    notices: NoticeState | None


def to_json_object(overview: Overview) -> TopPage:
    """Return an overview as an object for JSON."""
    fields = {name: getattr(overview, name) for name in overview.__struct_fields__}
    fields["queues"] = tuple(map(Queue.from_depth, overview.queues))
    if overview.runs is not None:
        fields["runs"] = tuple(map(BulkRun.from_progress, overview.runs))
    return TopPage(**fields)


def format_overview(overview: Overview, server: str, *, width: int) -> list[str]:
    """Return an overview as lines of at most `width` characters. `server` is the address of Redis."""
    clock = datetime.fromtimestamp(overview.unix_seconds, UTC).strftime("%H:%M:%S UTC")
    lines = [_cut(f"headrace top  {clock}  {server}", width), *_wrap(_format_totals(overview), width), ""]
    activities = None if overview.models is None else {activity.model: activity for activity in overview.models}
    columns = _make_queue_columns(overview.queues, overview.oldest_wait_seconds, activities or {})
    lines += _format_table(columns, width, "no model has a queue yet: a worker that serves a model publishes it")
    if overview.runs:
        now_ms = round(1000 * overview.unix_seconds)
        lines += ["", *_format_table(_make_run_columns(overview.runs[:_MAX_RUNS], now_ms), width, "")]
    lines.append("")
    no_workers = "this user may not listen to events" if overview.models is None else "no events from any worker"
    lines += _format_table(_make_worker_columns(overview.workers), width, f"workers: {no_workers}")
    if overview.errors:
        header, *errors = _format_table(_make_error_columns(overview.errors[:_MAX_ERRORS]), width, "")
        lines += ["", header, *(click.style(line, fg="red") for line in errors)]
    return lines


def format_outage(error: str, width: int) -> list[str]:
    """Return the page that is shown while Redis is unavailable, as lines."""
    return ["headrace top", "", click.style(_cut(escape_unprintable(error), width), fg="red")]


def _format_totals(overview: Overview) -> list[str]:
    totals = []
    if overview.models is not None:
        totals.append(f"{_format_rate(sum(model.succeeded_per_second for model in overview.models))} jobs/s")
        totals.append(f"{_format_rate(sum(model.failed_per_second for model in overview.models))} failed/s")
    totals.append(f"{sum(queue.waiting for queue in overview.queues):,} waiting")
    totals.append(f"{sum(queue.leased for queue in overview.queues):,} leased")
    totals.append(f"{sum(queue.delayed for queue in overview.queues):,} delayed")
    if overview.dead_letters is not None:
        totals.append(plural(overview.dead_letters, "dead letter"))
    return totals


def _wrap(texts: Sequence[str], width: int) -> list[str]:
    """Join the texts into as few lines as they fit on."""
    lines: list[str] = []
    for text in texts:
        if lines and len(lines[-1]) + 2 + len(text) <= width:
            lines[-1] += f"  {text}"
        else:
            lines.append(_cut(text, width))
    return lines


def _make_queue_columns(
    depths: Sequence[QueueDepth], waits: dict[str, float], activities: dict[str, ModelActivity]
) -> list[Column]:
    depths = sorted(depths, key=lambda depth: (-depth.backlog, -depth.waiting, depth.model))
    # The times and rates of chunks of tables are apart from those of jobs.
    models = [depth.queue if depth.is_bulk else depth.model for depth in depths]
    oldest = [format_age(waits[model]) if model in waits else "-" for model in models]
    active = [activities.get(model) for model in models]
    return [
        Column("MODEL", [_format_model(depth) for depth in depths], align_right=False),
        Column("BACKLOG", [f"{depth.backlog:,}" for depth in depths], 3),
        Column("WAITING", [f"{depth.waiting:,}" for depth in depths]),
        Column("OLDEST", oldest, 2),
        Column("LEASED", [f"{depth.leased:,}" for depth in depths], 4),
        Column("DELAYED", [f"{depth.delayed:,}" for depth in depths], 7),
        Column("DUE", [f"{depth.due:,}" for depth in depths], 9),
        Column("ISOLATED", [f"{depth.isolated:,}" for depth in depths], 10),
        Column("JOBS/S", [_format_rate(model.succeeded_per_second) if model else "-" for model in active]),
        Column("FAILED/S", [_format_rate(model.failed_per_second) if model else "-" for model in active], 5),
        Column("RETRIED/S", [_format_rate(model.retried_per_second) if model else "-" for model in active], 8),
        Column("P50", [_format_ms(model.p50_ms) if model else "-" for model in active], 6),
        Column("P95", [_format_ms(model.p95_ms) if model else "-" for model in active], 1),
    ]


def _format_model(depth: QueueDepth) -> str:
    kind = " (bulk)" if depth.is_bulk else ""
    return f"{escape_unprintable(depth.model)}{kind}{' (paused)' if depth.paused else ''}"


def _make_run_columns(runs: Sequence[RunProgress], now_ms: int) -> list[Column]:
    paces = [measure_pace(run, now_ms) for run in runs]
    shares = ["-" if pace.share is None else f"{pace.share:.0%}" for pace in paces]
    rates = ["-" if pace.rows_per_second is None else _format_rate(pace.rows_per_second) for pace in paces]
    times_left = [
        "-" if pace.remaining_seconds is None else format_clock(pace.remaining_seconds) for pace in paces
    ]
    return [
        Column("RUN", [escape_unprintable(run.run.name) for run in runs], align_right=False),
        Column("MODEL", [escape_unprintable(run.run.model) for run in runs], 3, align_right=False),
        Column("STATE", [run.state for run in runs], align_right=False),
        Column("DONE", shares),
        Column("ROWS", [f"{run.rows_done:,}" for run in runs], 2),
        Column("FAILED", [f"{run.rows_failed:,}" for run in runs], 1),
        Column("ROWS/S", rates, 4),
        Column("LEFT", times_left),
    ]


def _make_worker_columns(workers: Sequence[WorkerActivity]) -> list[Column]:
    heartbeats = [format_age(worker.heartbeat_age_seconds) for worker in workers]
    return [
        Column("WORKER", [escape_unprintable(worker.worker) for worker in workers], align_right=False),
        Column("STATE", ["up" if worker.alive else "LOST" for worker in workers], align_right=False),
        Column("CLAIMS", [str(worker.active_claims) for worker in workers], 1),
        Column("JOBS/S", [_format_rate(worker.jobs_per_second) for worker in workers]),
        Column("LOAD", ["-" if worker.load is None else f"{worker.load:.1f}" for worker in workers], 2),
        Column("HEARTBEAT", [f"{age} ago" for age in heartbeats], 3),
    ]


def _make_error_columns(errors: Sequence[ErrorCount]) -> list[Column]:
    return [
        Column("FAILED", [f"{error.count:,}" for error in errors]),
        Column("MODEL", [escape_unprintable(error.model) or "-" for error in errors], align_right=False),
        Column("ERROR", [escape_unprintable(error.error) for error in errors], align_right=False),
    ]


def _format_table(columns: Sequence[Column], width: int, if_empty: str) -> list[str]:
    """Return a table of the columns that fit, with a bold header; the line `if_empty` for a table without rows."""
    if not columns[0].cells:
        return [_cut(if_empty, width)]
    lines = [_cut(line, width) for line in format_columns(fit_columns(columns, width))]
    return [click.style(lines[0], bold=True), *lines[1:]]


def _cut(line: str, width: int) -> str:
    """Return a line of at most `width` characters. Every line passes here, before it is styled."""
    line = escape_controls(line)
    return line if len(line) <= width else line[: max(0, width - 1)] + "…"


def _format_rate(rate: float) -> str:
    return f"{rate:,.0f}" if rate >= 10 or rate == 0 else f"{rate:.1f}"


def _format_ms(ms: float | None) -> str:
    return "-" if ms is None else format_duration(ms)
