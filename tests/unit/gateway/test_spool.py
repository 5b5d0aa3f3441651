"""The spool between the event loop and a thread, and the pipe of an answer."""

from __future__ import annotations

import asyncio
import random
import threading

import pytest

from headrace_gateway.answer_pipe import AnswerPipe
from headrace_gateway.batch_body import choose_format, guess_format
from headrace_gateway.events import parse_sent
from headrace_gateway.spool import MEMORY_BYTES, Spool


def read_all(spool: Spool, size: int) -> bytes:
    content = bytearray()
    while piece := spool.read1(size):
        assert len(piece) <= size
        content += piece
    return bytes(content)


def test_a_spool_returns_what_was_written_whatever_lies_in_memory_and_in_the_file():
    generator = random.Random(1)
    pieces = [generator.randbytes(generator.randrange(1, MEMORY_BYTES)) for _ in range(12)]
    spool = Spool()
    received: list[bytes] = []
    reader = threading.Thread(target=lambda: received.append(read_all(spool, 100_000)))
    for piece in pieces[:6]:
        spool.write(piece)
    assert spool.pending == sum(map(len, pieces[:6])) > MEMORY_BYTES
    reader.start()
    for piece in pieces[6:]:
        spool.write(piece)
    spool.end()
    reader.join(30)
    assert received == [b"".join(pieces)]
    assert spool.pending == 0
    spool.close()


def test_a_spool_is_idle_until_something_is_written_or_it_ends():
    spool = Spool()
    assert not spool.wait(0)
    spool.write(b"")
    assert not spool.wait(0)
    spool.write(b"a")
    assert spool.wait(0)
    assert spool.read1(10) == b"a"
    assert not spool.wait(0)
    spool.end()
    assert spool.wait(0)
    assert spool.read1(10) == b""


def test_the_reader_of_a_spool_that_failed_gets_the_first_error_and_nothing_more():
    spool = Spool()
    spool.write(b"a")
    spool.fail(ConnectionError("first"))
    spool.fail(ConnectionError("second"))
    spool.write(b"b")
    assert spool.pending == 1
    with pytest.raises(ConnectionError, match="first"):
        spool.read1(10)
    with pytest.raises(ConnectionError, match="first"):
        spool.wait(0)
    spool.close()
    assert spool.pending == 0


async def test_a_pipe_holds_up_its_thread_only_once_it_is_open():
    pipe = AnswerPipe()
    written: list[int] = []

    def write() -> None:
        for number in range(20):
            pipe.write(bytes([number]) * 500_000)
            pipe.flush()
            written.append(number)
        pipe.end()

    await asyncio.to_thread(write)
    assert len(written) == 20
    pipe.open()
    writer = asyncio.create_task(asyncio.to_thread(write))
    await asyncio.sleep(0.1)
    assert len(written) == 20
    content = b""
    while len(content) < 20_000_000:
        content += await pipe.next()
    await writer
    assert await pipe.next() == b""
    assert content == b"".join(bytes([number]) * 500_000 for number in range(20)) * 2
    pipe.close()


async def test_a_thread_that_waits_for_a_caller_who_hung_up_gets_an_error():
    pipe = AnswerPipe()
    pipe.open()
    pipe.write(b"a" * 2_000_000)
    pipe.flush()
    pipe.write(b"b")
    waiting = asyncio.create_task(asyncio.to_thread(pipe.flush))
    await asyncio.sleep(0.05)
    assert not waiting.done()
    pipe.fail(ConnectionError("gone"))
    with pytest.raises(ConnectionError, match="gone"):
        await waiting
    pipe.close()


def test_the_format_of_a_body_is_that_of_its_type_or_of_its_first_byte():
    assert choose_format(None) is None
    assert choose_format("Text/CSV; charset=UTF-8; header=present") == "csv"
    assert choose_format("application/jsonl") == "jsonl"
    assert [guess_format(start) for start in (b"", b"a,b", b' {"a"', b"\xef\xbb\xbf[1]", b'"a",b')] == [
        *("csv", "csv", "jsonl", "jsonl", "csv")
    ]


def test_a_last_event_id_says_which_of_so_many_jobs_have_ended():
    assert [parse_sent(text, 3) for text in (None, "", "5", "7", "8", "x", "-1", "0x1")] == [
        0,
        0,
        5,
        7,
        0,
        0,
        0,
        0,
    ]
    assert parse_sent(f"{(1 << 1000) - 1:x}", 1000) == (1 << 1000) - 1
