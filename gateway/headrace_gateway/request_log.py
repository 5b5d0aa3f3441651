"""The log: a line of JSON for each request and each event of the process. No line has a body or a key in it."""

from __future__ import annotations

import asyncio
import logging
import sys
from typing import Any, TextIO

import msgspec
import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

_TIMESTAMP = structlog.processors.TimeStamper(fmt="iso", utc=True, key="timestamp")


def install_log(stream: TextIO = sys.stderr) -> None:
    """Write the events of the process, those of uvicorn included, to a stream as JSON."""
    before: list[Processor] = [
        _TIMESTAMP,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.ExtraAdder(),
    ]
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=before,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                _drop_colours,
                structlog.processors.format_exc_info,
                structlog.processors.JSONRenderer(_encode),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
    logging.getLogger("uvicorn").setLevel(logging.WARNING)  # `server` says the rest in words of its own


def _drop_colours(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    event.pop("color_message", None)
    return event


def _encode(event: EventDict, **_: Any) -> str:
    return msgspec.json.encode(event, enc_hook=str).decode()


class RequestLog:
    """Writes a line for each request. The lines of one turn of the event loop are written together."""

    def __init__(self, stream: TextIO = sys.stderr) -> None:
        self._stream = stream
        self._lines: list[bytes] = []

    def write(self, **fields: object) -> None:
        """Write a line with these fields."""
        line: EventDict = {"event": "request", "level": "info", "logger": "headrace.gateway", **fields}
        self._lines.append(msgspec.json.encode(_TIMESTAMP(None, "info", line)))
        if len(self._lines) == 1:
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        text = b"\n".join(self._lines).decode() + "\n"
        self._lines.clear()
        self._stream.write(text)
        self._stream.flush()
