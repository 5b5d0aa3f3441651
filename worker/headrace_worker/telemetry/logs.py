"""The format of log lines, Celery's included: JSON for a service, text on a terminal, without secrets.

A line has `timestamp`, `level`, `logger`, `event` (a sentence) and `worker`. Further facts, such as `queue`,
`claim`, `job`, `model`, `version` and `attempt`, are fields of their own.
"""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Iterable
from typing import Any, Literal
from urllib.parse import parse_qsl, quote, unquote, urlsplit

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from headrace.connection.url import clean_url
from headrace.terminal import escape_controls, escape_json

#: The replacement of a secret.
MASK = "***"
#: A password in any URL that a line quotes.
_URL_PASSWORD = re.compile(r"(?<=://)([^\s/@:'\"]*):[^\s/@'\"]+@")
#: Characters of the shortest secret that is masked everywhere: a shorter one would match inside ordinary words.
#: In a URL it is masked all the same.
_MIN_SECRET_CHARS = 4


class LogFormat:
    """The log format of one worker. `secrets` are masked wherever they appear; `worker` may be set later."""

    def __init__(self, style: Literal["auto", "json", "text"] = "auto", secrets: Iterable[str] = ()) -> None:
        self._style = style
        masked = {secret for secret in secrets if len(secret) >= _MIN_SECRET_CHARS}
        self._secrets = sorted(masked, key=len, reverse=True)
        self.worker = ""

    def install(self, level: int) -> None:
        """Format the root logger now; Celery adds its own handlers only after the models are loaded.

        `level` is the worker's log level. Until then it is that of Headrace's own loggers only.
        """
        logging.getLogger("headrace").setLevel(level)
        root = logging.getLogger()
        if not root.handlers:
            root.addHandler(logging.StreamHandler())
            self.apply_to(root)

    def apply_to(self, *loggers: logging.Logger | None) -> None:
        """Set this format on every handler of these loggers; None is skipped."""
        for logger in loggers:
            for handler in logger.handlers if logger is not None else ():
                stream = getattr(handler, "stream", None)
                terminal = bool(stream is not None and hasattr(stream, "isatty") and stream.isatty())
                handler.setFormatter(self._formatter(terminal))

    def _formatter(self, terminal: bool) -> logging.Formatter:
        text = terminal if self._style == "auto" else self._style == "text"
        renderer: Processor = (
            structlog.dev.ConsoleRenderer(colors=terminal, pad_event_to=0)
            if text
            else structlog.processors.JSONRenderer(_encode_line, ensure_ascii=False, default=str)
        )
        return structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[
                structlog.processors.TimeStamper(fmt="iso", utc=True, key="timestamp"),
                structlog.stdlib.add_log_level,
                structlog.stdlib.add_logger_name,
                structlog.stdlib.ExtraAdder(),
                self._set_worker,
            ],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                self._mask_fields,
                *([_escape_fields] if text else []),
                renderer,
            ],
        )

    def _set_worker(self, _: WrappedLogger, __: str, event: EventDict) -> EventDict:
        # Celery adds a field `data` to its lines, with the arguments of tasks in it.
        if "data" in event and isinstance(event["data"], dict):
            del event["data"]
        event["worker"] = self.worker
        return event

    def _mask_fields(self, _: WrappedLogger, __: str, event: EventDict) -> EventDict:
        return {name: self._mask(value) for name, value in event.items()}

    def _mask(self, value: Any) -> Any:
        match value:
            case str():
                for secret in self._secrets:
                    value = value.replace(secret, MASK)
                return _URL_PASSWORD.sub(rf"\1:{MASK}@", value)
            case bool() | int() | float() | None:
                return value
            case list() | tuple():
                return [self._mask(element) for element in value]
            case _:
                return self._mask(str(value))


def _escape_fields(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Escape what a terminal would obey: fields quote what others wrote."""
    return {name: _escape(value) for name, value in event.items()}


def _escape(value: Any) -> Any:
    match value:
        case str():
            return escape_controls(value)
        case list():
            return [_escape(element) for element in value]
        case _:
            return value


def _encode_line(event: EventDict, **options: Any) -> str:
    return escape_json(json.dumps(event, **options))


def find_secrets(*urls: str) -> set[str]:
    """Return the passwords in these URLs, quoted and unquoted, and the key in SENTRY_DSN.

    An argument may hold several URLs, separated by semicolons.
    """
    secrets = set()
    for urls_text in (*urls, os.environ.get("SENTRY_DSN", "")):
        for url in urls_text.split(";"):
            try:
                parsed = urlsplit(clean_url(url))
            except ValueError:
                continue
            options = [value for name, value in parse_qsl(parsed.query) if name.endswith("password")]
            for secret in (parsed.password, parsed.username if urls_text.startswith("http") else None, *options):
                if secret:
                    secrets |= {secret, unquote(secret), quote(unquote(secret), safe="")}
    return secrets
