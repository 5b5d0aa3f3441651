"""Text for terminals: what a terminal would obey is escaped, on streams and in log records."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator

import pytest

from headrace.status_line import StatusLine
from headrace.terminal import PlainBytes, PlainStream, escape_log_records, write_control

EVIL = "a\x1b[2J\x9bb\u202e\ud800"
ESCAPED = "a\\x1b[2J\\x9bb\\u202e\\ud800"


@pytest.fixture
def stream() -> PlainStream:
    return PlainStream(io.TextIOWrapper(io.BytesIO(), encoding="utf-8"))


def written(stream: PlainStream) -> str:
    stream.flush()
    content: bytes = stream.buffer.getvalue()  # type: ignore[attr-defined]  # a BytesIO
    return content.decode()


def test_a_stream_escapes_text_and_passes_our_own_controls(stream: PlainStream) -> None:
    assert stream.write(EVIL) == len(EVIL)
    write_control(stream, "\x1b[K")
    print(EVIL, file=stream)
    assert written(stream) == f"{ESCAPED}\x1b[K{ESCAPED}\n"


def test_a_stream_escapes_what_its_encoding_lacks() -> None:
    stream = PlainStream(io.TextIOWrapper(io.BytesIO(), encoding="ascii"))
    stream.write("東")
    assert written(stream) == "\\u6771"


def test_bytes_for_a_terminal_are_escaped(stream: PlainStream) -> None:
    file = PlainBytes(stream)
    assert file.write(b"x\x1b\xff\n") == 4
    assert written(stream) == "x\\x1b�\n"


def test_a_status_line_escapes_its_text(stream: PlainStream) -> None:
    line = StatusLine(stream, terminal=True)
    line.show(lambda _: EVIL)
    line.close()
    assert written(stream) == f"\r{ESCAPED}\x1b[K\r\x1b[K"


@pytest.fixture
def plain_records() -> Iterator[None]:
    factory = logging.getLogRecordFactory()
    escape_log_records()
    yield
    logging.setLogRecordFactory(factory)


def test_records_of_a_log_are_escaped_with_their_tracebacks(
    plain_records: None, caplog: pytest.LogCaptureFixture
) -> None:
    logging.getLogger("x").error("failed: %s", EVIL, exc_info=ValueError(EVIL))
    assert f"failed: {ESCAPED}\n" in caplog.text
    assert f"ValueError: {ESCAPED}" in caplog.text
    assert caplog.records[0].getMessage() == f"failed: {ESCAPED}"
