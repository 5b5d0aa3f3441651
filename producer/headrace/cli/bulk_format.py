"""Bulk runs as lines for people, as log lines and as a bar."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from headrace.bulk.progress import RunFailures
from headrace.cli.tables import escape_unprintable, format_table
from headrace.clock import from_unix_ms
from headrace.inspection.run_pace import measure_pace
from headrace.text import format_age, format_clock, format_duration, plural
from headrace.wire.bulk import RunProgress

#: Columns of the widest bar.
_BAR_COLUMNS = 30
#: Failed chunks that are listed.
_MAX_CHUNKS = 20


def format_run(progress: RunProgress, now_ms: int) -> Iterator[str]:
    """Yield the lines of one run. `now_ms` is the present moment, in unix milliseconds."""
    run, pace = progress.run, measure_pace(progress, now_ms)
    yield f"run {run.name} of {_name_model(progress)}: {progress.state}"
    yield f"  input      {escape_unprintable(run.input)}"
    yield f"  output     {escape_unprintable(run.output)}"
    options = [
        f"{title} {escape_unprintable(str(value))}"
        for title, value in (
            ("method", run.method),
            ("key", run.key),
            ("keep", run.keep if run.keep is None else ",".join(run.keep) or "none"),
            ("max-failed", _format_limit(run.max_failed)),
        )
        if value is not None
    ]
    if options:
        yield f"  options    {', '.join(options)}"
    yield f"  submitted  {from_unix_ms(progress.submitted_ms):%Y-%m-%d %H:%M:%S} UTC"
    yield f"  {'took' if progress.ended_ms else 'age':9}  {format_duration(_elapsed_ms(progress, now_ms))}"
    if progress.started_ms is not None:
        yield f"  rows       {describe_rows(progress)}"
        chunks = _ratio(progress.chunks_done, progress.chunks)
        failed = f", {progress.chunks_failed:,} failed" if progress.chunks_failed else ""
        yield f"  chunks     {chunks} done{failed}"
        if pace.rows_per_second is not None:
            yield f"  pace       {_describe_pace(pace.rows_per_second, pace.remaining_seconds)}"
    if progress.round > 1:
        yield f"  resumed    {plural(progress.round - 1, 'time')}"
    if progress.error:
        yield f"  error      {escape_unprintable(progress.error)}"


def describe_rows(progress: RunProgress) -> str:
    """Return the rows of a run: `470,000 of 1,000,000 rows (47 %), 12 failed`."""
    share = measure_pace(progress, 0).share
    rows = _ratio(progress.rows_done, progress.rows)
    percent = f" ({share:.0%})" if share is not None else ""
    return f"{rows} rows{percent}, {progress.rows_failed:,} failed"


def format_progress(progress: RunProgress, rate: float | None, *, width: int | None) -> str:
    """Return the progress of a wait as one line; a bar for a terminal of `width` columns, text for None.

    `rate` is in rows a second.
    """
    if progress.state == "planning":
        text = f"{progress.run.name}: planning"
        return text if width is None else text[: width - 1]
    counts = [f"{progress.rows_done:,} rows done", f"{progress.rows_failed:,} failed"]
    if progress.state == "finishing":
        counts.append("finishing")
    if rate is not None:
        remaining = (progress.rows - progress.rows_done) / rate if progress.rows and rate else None
        counts.append(_describe_pace(rate, remaining if progress.state == "running" else None))
    text, share = ", ".join(counts), measure_pace(progress, 0).share
    if width is None:
        percent = "" if share is None else f"{share:.0%}, "
        return f"{progress.run.name}: {percent}{text}"
    if share is None:
        return text[: width - 1]
    bar_width = min(_BAR_COLUMNS, width - len(text) - 11)
    if bar_width < 5:
        return f"{share:4.0%} {text}"[: width - 1]
    filled = int(share * bar_width)
    return f"[{'#' * filled}{'-' * (bar_width - filled)}] {share:4.0%}  {text}"


def format_end(progress: RunProgress) -> str:
    """Return the line about a run that is a success."""
    rate = measure_pace(progress, 0).rows_per_second
    pace = "" if rate is None else f" ({rate:,.0f} rows/s)"
    return (
        f"{plural(progress.rows_done, 'row')} predicted by {_name_model(progress)} in "
        f"{format_duration(_elapsed_ms(progress, 0))}{pace}, {progress.rows_failed:,} failed"
    )


def format_runs(runs: Sequence[RunProgress], now_ms: int, *, width: int | None = None) -> list[str]:
    """Return a table of runs, with a header, in `width` characters; None is any width."""
    rows = [["RUN", "MODEL", "STATE", "DONE", "ROWS", "FAILED", "ROWS/S", "AGE"]]
    for run in runs:
        pace = measure_pace(run, now_ms)
        share, rate = pace.share, pace.rows_per_second
        rows.append(
            [
                run.run.name,
                _name_model(run),
                run.state,
                "-" if share is None else f"{share:.0%}",
                f"{run.rows_done:,}",
                f"{run.rows_failed:,}",
                "-" if rate is None else f"{rate:,.0f}",
                format_age((now_ms - run.submitted_ms) / 1000),
            ]
        )
    return format_table(rows, right=range(3, 8), drops={6: 5, 1: 4, 7: 3, 4: 2, 5: 1}, width=width)


def format_failures(failures: RunFailures, *, width: int | None = None) -> Iterator[str]:
    """Yield the failures of a run as lines: failed rows by reason, then failed chunks."""
    if failures.reasons:
        yield from format_table(
            [["ROWS", "REASON"], *([f"{count:,}", reason] for reason, count in failures.reasons.items())],
            right={0},
            texts={1},
            width=width,
        )
    for chunk in failures.chunks[:_MAX_CHUNKS]:
        yield f"chunk {chunk.chunk} failed ({chunk.reason}): {escape_unprintable(chunk.message)}"
    if len(failures.chunks) > _MAX_CHUNKS:
        yield f"... and {plural(len(failures.chunks) - _MAX_CHUNKS, 'more chunk')}"


def advise_on_failures(progress: RunProgress, failures: RunFailures) -> Iterator[str]:
    """Yield what a person can do about the failures of a run."""
    run = progress.run
    if failures.reasons:
        yield f"the failed rows are in {escape_unprintable(run.output)}/errors, with file, row number and reason"
    if failures.chunks:
        yield (
            f"failed chunks are dead letters: `headrace dead show {failures.chunks[0].job}` prints the first; "
            f"when the cause is mended, `headrace bulk resume {run.name}` runs them again"
        )


def _describe_pace(rate: float, remaining: float | None) -> str:
    left = "" if remaining is None else f", {format_clock(remaining)} left"
    return f"{rate:,.0f} rows/s{left}"


def _elapsed_ms(progress: RunProgress, now_ms: int) -> int:
    return max(0, (now_ms if progress.ended_ms is None else progress.ended_ms) - progress.submitted_ms)


def _name_model(progress: RunProgress) -> str:
    version = progress.version or progress.run.version
    return escape_unprintable(f"{progress.run.model}@{version}" if version else progress.run.model)


def _ratio(done: int, total: int | None) -> str:
    return f"{done:,}" if total is None else f"{done:,} of {total:,}"


def _format_limit(max_failed: float | None) -> str | None:
    if max_failed is None:
        return None
    return f"{100 * max_failed:g}%" if 0 < max_failed < 1 else f"{max_failed:,.0f}"
