"""The form of log lines, Celery's own too: JSON on a service, readable on a terminal, and no secret in either.

A line has `timestamp`, `level`, `logger`, `event` (a sentence) and `worker`; what is known of it besides, such as
`queue`, `claim`, `job`, `model`, `version` and `attempt`, stands in fields of its own.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterable
from typing import Any, Literal
from urllib.parse import unquote, urlsplit

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

#: What stands where a secret stood.
STRUCK = "***"
#: A password in a URL, wherever one is quoted.
_IN_URL = re.compile(r"(?<=://)([^\s/@:'\"]*):[^\s/@'\"]+@")
#: A shorter secret is a part of too many words; in a URL it is struck all the same.
_LEAST = 4


class LogFormat:
    """How this worker's lines look. `secrets` are struck wherever they stand; `worker` may be told later."""

    def __init__(self, form: Literal["auto", "json", "text"] = "auto", secrets: Iterable[str] = ()) -> None:
        self._form = form
        self._secrets = sorted({one for one in secrets if len(one) >= _LEAST}, key=len, reverse=True)
        self.worker = ""

    def install(self) -> None:
        """Have a form from the start: Celery sets its own handlers once the models are loaded."""
        root = logging.getLogger()
        if not root.handlers:
            root.addHandler(logging.StreamHandler())
            self.apply_to(root)

    def apply_to(self, *loggers: logging.Logger | None) -> None:
        """Let the handlers of these loggers write so."""
        for logger in loggers:
            for handler in logger.handlers if logger is not None else ():
                stream = getattr(handler, "stream", None)
                terminal = bool(stream is not None and hasattr(stream, "isatty") and stream.isatty())
                handler.setFormatter(self._formatter(terminal))

    def _formatter(self, terminal: bool) -> logging.Formatter:
        text = terminal if self._form == "auto" else self._form == "text"
        ends: list[Processor] = [
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.format_exc_info,
            self._strike,
            structlog.dev.ConsoleRenderer(colors=terminal, pad_event_to=0)
            if text
            else structlog.processors.JSONRenderer(ensure_ascii=False, default=str),
        ]
        return structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[
                structlog.processors.TimeStamper(fmt="iso", utc=True, key="timestamp"),
                structlog.stdlib.add_log_level,
                structlog.stdlib.add_logger_name,
                structlog.stdlib.ExtraAdder(),
                self._about,
            ],
            processors=ends,
        )

    def _about(self, _: WrappedLogger, __: str, event: EventDict) -> EventDict:
        # Celery gives its lines fields of its own, arguments of tasks among them.
        if "data" in event and isinstance(event["data"], dict):
            del event["data"]
        event["worker"] = self.worker
        return event

    def _strike(self, _: WrappedLogger, __: str, event: EventDict) -> EventDict:
        return {name: self._struck(value) for name, value in event.items()}

    def _struck(self, value: Any) -> Any:
        match value:
            case str():
                for secret in self._secrets:
                    value = value.replace(secret, STRUCK)
                return _IN_URL.sub(rf"\1:{STRUCK}@", value)
            case bool() | int() | float() | None:
                return value
            case list() | tuple():
                return [self._struck(one) for one in value]
            case _:
                return self._struck(str(value))


def find_secrets(*urls: str) -> set[str]:
    """The passwords in URLs, as they stand there and as they are meant, and the key in SENTRY_DSN."""
    found = set()
    for url in (*urls, os.environ.get("SENTRY_DSN", "")):
        for part in url.split(";"):
            try:
                parts = urlsplit(part)
            except ValueError:
                continue
            for secret in (parts.password, parts.username if url.startswith("http") else None):
                if secret:
                    found |= {secret, unquote(secret)}
    return found
