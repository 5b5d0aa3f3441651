"""The format of log lines: JSON for a service, text on a terminal, with fields and without secrets."""

from __future__ import annotations

import io
import json
import logging
import re
from typing import Any

import pytest

from headrace_worker.telemetry.logs import LogFormat, find_secrets


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def format_line(log_format: LogFormat, *args: Any, stream: io.StringIO | None = None, **extra: Any) -> str:
    """Log a warning with these arguments and extra fields, and return the line. Without fields it has an error."""
    stream = stream if stream is not None else io.StringIO()
    logger = logging.Logger("celery.worker")
    logger.addHandler(logging.StreamHandler(stream))
    log_format.apply_to(logger)
    error = ConnectionError("redis://:hunter2@redis:6379/0 is unreachable")
    logger.warning(*args, extra=extra or None, exc_info=None if extra else error)
    return stream.getvalue()


def test_a_line_of_any_logger_is_a_json_object_with_its_fields() -> None:
    log_format = LogFormat()
    log_format.worker = "w@here"
    line = format_line(log_format, "%d jobs failed", 3, queue="predict.churn", jobs=["a", "b"])
    fields = json.loads(line)
    assert line.count("\n") == 1
    assert fields.pop("timestamp").endswith("Z")
    assert fields == {
        "event": "3 jobs failed",
        "level": "warning",
        "logger": "celery.worker",
        "worker": "w@here",
        "queue": "predict.churn",
        "jobs": ["a", "b"],
    }


def test_a_line_on_a_terminal_is_coloured_text() -> None:
    line = format_line(LogFormat(), "two\nlines", stream=Terminal(), queue="predict.churn")
    assert "two" in line
    assert "\x1b[" in line
    with pytest.raises(ValueError):  # noqa: PT011  # any message will do: it is not JSON
        json.loads(line)


@pytest.mark.parametrize("style", ["json", "text"])
def test_the_style_can_be_set(style: Any) -> None:
    assert format_line(LogFormat(style), "x", a=1).startswith("{") == (style == "json")


@pytest.mark.parametrize("style", ["json", "text"])
def test_passwords_are_masked_in_messages_fields_and_tracebacks(style: Any) -> None:
    log_format = LogFormat(style, find_secrets("redis://:s%2Fcret@redis/0;rediss://me:other@two:1/0"))
    line = format_line(log_format, "at %s", "rediss://me:xyz@there:1/0, s/cret, s%2Fcret, other")
    assert "ConnectionError" in line
    assert "me:***@there" in line
    for secret in ("hunter2", "xyz", "s/cret", "s%2Fcret", "other"):
        assert secret not in line


def test_a_password_is_masked_in_whatever_form_its_url_is_written() -> None:
    secrets = find_secrets(" 'redis://:a[b]cd@h/0' ", "sentinel://h?master_name=x&sentinel_password=hunter22")
    assert secrets == {"a[b]cd", "a%5Bb%5Dcd", "hunter22"}


def test_the_key_of_a_dsn_is_a_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SENTRY_DSN", "https://0123456789abcdef@sentry.example/7")
    assert find_secrets() == {"0123456789abcdef"}


def test_the_arguments_of_a_task_that_celery_adds_are_left_out() -> None:
    assert "Xyzzy" not in format_line(LogFormat(), "Task received", data={"args": "Xyzzy"})


@pytest.mark.parametrize("stream", [io.StringIO(), Terminal()], ids=["json", "text"])
def test_what_a_terminal_obeys_is_escaped_in_every_field_and_in_tracebacks(stream: io.StringIO) -> None:
    evil = "a\x1b]0;t\x07\x9b\u202e\ud800"
    logger = logging.Logger("headrace.claims")
    logger.addHandler(logging.StreamHandler(stream))
    LogFormat().apply_to(logger)
    logger.error("of %s", evil, extra={"queue": evil, "jobs": [evil]}, exc_info=ValueError(evil))
    line = re.sub(r"\x1b\[[\d;]*m", "", stream.getvalue())
    assert line.count("a") > 4
    assert not set(line) & {"\x1b", "\x07", "\x9b", "\u202e", "\ud800"}
