"""An input that arrives slowly: what was read is sent, and what was predicted is written."""

from __future__ import annotations

import io

from headrace.batch.blocks import split_into_blocks
from headrace.batch.reader import Lines, Row
from headrace.catalog.contract import Contract, Output, Text

CONTRACT = Contract(model="m", version="1", input=Text(), methods={"predict": Output(shape=())})


class Pausing(io.BytesIO):
    """A file whose bytes arrive in pieces; `pause` lets the next look find nothing."""

    def __init__(self, *pieces: bytes) -> None:
        super().__init__()
        self._pieces = list(pieces)
        self.is_pausing = False

    def read1(self, size: int | None = -1) -> bytes:
        return self._pieces.pop(0) if self._pieces else b""

    def wait(self, seconds: float) -> bool:
        return not self.is_pausing


def test_lines_are_idle_only_without_a_complete_line_and_before_the_end():
    file = Pausing(b"a\nb\nc", b"\n")
    lines = Lines(file, "file")
    assert next(lines) == "a\n"
    file.is_pausing = True
    assert not lines.is_idle(0)  # the second line is there
    assert next(lines) == "b\n"
    assert lines.is_idle(0)
    file.is_pausing = False
    assert next(lines) == "c\n"
    assert next(lines, None) is None
    file.is_pausing = True
    assert not lines.is_idle(0)


def test_lines_are_taken_together_until_the_file_pauses():
    file = Pausing(b"a\nb\n", b"c\n", b"d\n")
    lines = Lines(file, "file")
    assert lines.peek(3, 1000, seconds=60) == [b"a", b"b", b"c"]
    lines.skip(3, 3)
    file.is_pausing = True
    assert lines.peek(3, 1000, seconds=60) == [b"d"]


def test_a_pause_completes_a_block_and_a_longer_one_yields_none():
    pauses = iter([False, True, True, True, False, False, False, False])
    rows = [Row(line=number, values={}, instance=str(number)) for number in range(1, 5)]
    blocks = split_into_blocks(CONTRACT, rows, 10, is_idle=lambda: next(pauses))
    assert [block and [row.line for row in block.rows] for block in blocks] == [[1, 2], None, None, [3, 4]]
