"""`headrace dev` shows the jobs and problems that a worker writes to its log."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from headrace_worker.local.job_stream import JobStream, format_line

JOB: dict[str, Any] = {
    "timestamp": "2026-01-01T12:00:00.000000Z",
    "level": "info",
    "logger": "headrace.jobs",
    "event": "churn@3: 1 instance, success, 3.1 ms",
    "model": "churn",
    "version": "3",
    "state": "success",
    "job_count": 1,
    "instances": 1,
    "duration_ms": 3.1,
}


def shown(**fields: Any) -> str | None:
    """Return the line for a person without its time of day."""
    line = format_line(json.dumps(JOB | fields).encode())
    return None if line is None else line[len("12:00:00  ") :]


def test_a_job_is_shown_with_version_instances_state_and_time():
    assert shown() == "churn@3  1 instance  success  3.1 ms"


def test_jobs_of_a_claim_are_counted():
    assert shown(job_count=64, instances=640, version=None, state="expired", duration_ms=1500) == (
        "churn  64 jobs  640 instances  expired  1.5 s"
    )


@pytest.mark.parametrize(
    ("level", "logger", "is_shown"),
    [
        ("warning", "headrace.claims", True),
        ("error", "celery.worker", True),
        ("info", "headrace.models", True),
        ("info", "celery.apps.worker", False),
        ("debug", "headrace.claims", False),
    ],
)
def test_other_lines_are_shown_if_they_are_warnings_or_of_models(level: str, logger: str, is_shown: bool):
    fields = {name: value for name, value in JOB.items() if name != "state"}
    line = format_line(json.dumps({**fields, "level": level, "logger": logger, "event": "it\nis"}).encode())
    assert line is None if not is_shown else str(line).endswith("  it is")


def test_what_a_terminal_would_obey_is_escaped():
    assert shown(model="\x1b[2J") == "\\x1b[2J@3  1 instance  success  3.1 ms"


@pytest.mark.parametrize("line", [b"", b"a print of a model", b"[1]", b'{"timestamp": "soon"}', b"\xff", b"null"])
def test_what_is_no_line_of_the_log_is_skipped(line: bytes):
    assert format_line(line) is None


def test_the_stream_begins_at_the_end_and_waits_for_whole_lines(tmp_path: Path):
    log, line = tmp_path / "worker.log", json.dumps(JOB).encode() + b"\n"
    log.write_bytes(line)
    stream = JobStream(log)
    assert list(stream.read()) == []
    with log.open("ab") as file:
        file.write(line + line[:20])
    assert len(list(stream.read())) == 1
    with log.open("ab") as file:
        file.write(line[20:])
    assert len(list(stream.read())) == 1
    assert list(stream.read()) == []
