"""Log lines are JSON on a service and text on a terminal, say what they are about, and hold no secret."""

from __future__ import annotations

import io
import json
import logging
from typing import Any

import pytest

from headrace_worker.telemetry.logs import LogFormat, find_secrets


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def written(form: LogFormat, *args: Any, stream: io.StringIO | None = None, **extra: Any) -> str:
    stream = stream if stream is not None else io.StringIO()
    logger = logging.Logger("celery.worker")
    logger.addHandler(logging.StreamHandler(stream))
    form.apply_to(logger)
    error = ConnectionError("redis://:hunter2@redis:6379/0 is away")
    logger.warning(*args, extra=extra or None, exc_info=None if extra else error)
    return stream.getvalue()


def test_a_line_of_anyone_s_is_an_object_of_json_with_its_fields() -> None:
    form = LogFormat()
    form.worker = "w@here"
    line = written(form, "%d jobs failed", 3, queue="predict.churn", jobs=["a", "b"])
    told = json.loads(line)
    assert line.count("\n") == 1
    assert told.pop("timestamp").endswith("Z")
    assert told == {
        "event": "3 jobs failed",
        "level": "warning",
        "logger": "celery.worker",
        "worker": "w@here",
        "queue": "predict.churn",
        "jobs": ["a", "b"],
    }


def test_a_line_on_a_terminal_is_for_people() -> None:
    line = written(LogFormat(), "gone\nhome", stream=Terminal(), queue="predict.churn")
    assert "gone" in line
    assert "\x1b[" in line
    with pytest.raises(ValueError):  # noqa: PT011  # any will do: it is no JSON
        json.loads(line)


@pytest.mark.parametrize("form", ["json", "text"])
def test_the_form_can_be_chosen(form: Any) -> None:
    assert written(LogFormat(form), "x", a=1).startswith("{") == (form == "json")


@pytest.mark.parametrize("form", ["json", "text"])
def test_passwords_are_struck_from_lines_fields_and_tracebacks(form: Any) -> None:
    made = LogFormat(form, find_secrets("redis://:s%2Fcret@redis/0;rediss://me:other@two:1/0"))
    line = written(made, "at %s", "rediss://me:xyz@there:1/0, s/cret, s%2Fcret, other")
    assert "ConnectionError" in line
    assert "me:***@there" in line
    for secret in ("hunter2", "xyz", "s/cret", "s%2Fcret", "other"):
        assert secret not in line


def test_the_key_of_a_dsn_is_a_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SENTRY_DSN", "https://0123456789abcdef@sentry.example/7")
    assert find_secrets() == {"0123456789abcdef"}


def test_what_celery_adds_of_a_task_s_arguments_is_left_out() -> None:
    assert "Xyzzy" not in written(LogFormat(), "Task received", data={"args": "Xyzzy"})
