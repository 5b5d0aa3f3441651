"""Text for terminals, without what a terminal would obey.

Names, ids, errors and predictions come from Redis, where others write. A control character in them could move the
cursor, hide text, set the title of a window or answer a question. So the streams of a command print such
characters as escapes, and only `write_control` prints ours. Lines of JSON and of a log are escaped when they are
made: they may be shown on a terminal later.
"""

from __future__ import annotations

import contextlib
import io
import logging
import re
import sys
import traceback
from collections.abc import Iterator
from typing import Any, TextIO

#: C0 without tab and line feed, DEL, C1, marks that change the direction of text, separators, lone surrogates.
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def escape_controls(text: str) -> str:
    """Return text with Python's escapes in place of the characters that a terminal would obey.

    Tabs and line feeds stay.
    """
    return _CONTROLS.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def escape_json(text: str) -> str:
    """Return JSON of the same meaning, with JSON's escapes in place of what a terminal would obey."""
    return _CONTROLS.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


class PlainStream(io.TextIOWrapper):
    """A text stream that escapes what a terminal would obey, and what its encoding lacks."""

    def __init__(self, stream: io.TextIOWrapper) -> None:
        super().__init__(
            stream.buffer,
            encoding=stream.encoding,
            errors="backslashreplace",
            line_buffering=stream.line_buffering,
        )
        #: Kept, as it would close the buffer.
        self._original = stream

    def write(self, text: str) -> int:
        """Write text, escaped."""
        super().write(escape_controls(text))
        return len(text)

    def write_control(self, text: str) -> None:
        """Write text as it is: control sequences of our own."""
        super().write(text)


class PlainBytes(io.RawIOBase):
    """A binary stream of UTF-8 lines to a terminal, which escapes what the terminal would obey."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def writable(self) -> bool:
        """Return True."""
        return True

    def write(self, data: Any) -> int:
        """Write UTF-8, escaped."""
        raw = bytes(data)
        self._stream.write(escape_controls(raw.decode(errors="replace")))
        return len(raw)

    def flush(self) -> None:
        """Flush the terminal."""
        self._stream.flush()


def write_control(stream: TextIO, text: str) -> None:
    """Write control sequences of our own to a stream."""
    if isinstance(stream, PlainStream):
        stream.write_control(text)
    else:
        stream.write(text)


@contextlib.contextmanager
def plain_streams() -> Iterator[None]:
    """Escape, in the block, what is printed on standard error, and on standard output if it is a terminal."""
    former, former_errors = sys.stdout, sys.stderr
    with contextlib.ExitStack() as replaced:
        if isinstance(former, io.TextIOWrapper) and former.isatty():
            sys.stdout = replaced.enter_context(_replacing(former))
        if isinstance(former_errors, io.TextIOWrapper):
            sys.stderr = replaced.enter_context(_replacing(former_errors))
        try:
            yield
        finally:
            sys.stdout, sys.stderr = former, former_errors


@contextlib.contextmanager
def _replacing(stream: io.TextIOWrapper) -> Iterator[PlainStream]:
    stream.flush()
    plain = PlainStream(stream)
    try:
        yield plain
    finally:
        # Without its buffer the stream closes nothing. A reader that is gone is not our error.
        with contextlib.suppress(OSError, ValueError):
            plain.detach()


def escape_log_records() -> None:
    """Escape the messages and tracebacks of all log records that this process makes from now on."""
    make_record = logging.getLogRecordFactory()

    def make_plain_record(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = make_record(*args, **kwargs)
        try:
            record.msg, record.args = escape_controls(record.getMessage()), ()
        except (TypeError, ValueError):
            return record  # arguments that do not fit: logging reports them where they are
        if record.exc_info and record.exc_info[0] is not None:
            record.exc_text = escape_controls("".join(traceback.format_exception(*record.exc_info))).rstrip("\n")
        return record

    logging.setLogRecordFactory(make_plain_record)
