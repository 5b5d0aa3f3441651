"""Large bytes are read, hashed and handed on in pieces, and come out as they were."""

from __future__ import annotations

import hashlib
import io
import os
import time
from pathlib import Path

import pytest

from headrace_worker.store import chunks
from headrace_worker.store.cache import is_digest
from headrace_worker.store.chunks import PIECE, ThrottledFile
from headrace_worker.store.folder import read_up_to

SIZES = [0, 1, PIECE - 1, PIECE, PIECE + 1, 3 * PIECE + 7]


@pytest.mark.parametrize("size", SIZES)
def test_pieces_put_together_are_the_whole(size: int):
    data = os.urandom(size)
    assert b"".join(chunks.chunks(data)) == data
    assert is_digest(hashlib.sha256(data).hexdigest(), data)


@pytest.mark.parametrize("size", SIZES)
def test_a_file_is_read_as_it_is_and_no_further_than_one_may(size: int, tmp_path: Path):
    file, data = tmp_path / "artifact", os.urandom(size)
    file.write_bytes(data)
    assert read_up_to(file, 10 * PIECE) == data
    assert read_up_to(file, PIECE) == data[: PIECE + 1]


def test_what_comes_in_small_parts_is_read_to_its_end():
    class Pipe(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            return super().read(min(size or 1, 1000))

    data = os.urandom(10_001)
    assert chunks.read(Pipe(data), 1 << 20) == data


@pytest.mark.parametrize("size", SIZES)
def test_a_file_whose_reader_rests_reads_the_same_in_any_order(size: int, tmp_path: Path):
    path, data = tmp_path / "artifact", os.urandom(size)
    path.write_bytes(data)
    with io.BufferedReader(ThrottledFile(path)) as file:
        assert file.read() == data
        file.seek(size // 2)
        assert file.read(100) == data[size // 2 : size // 2 + 100]


def test_who_reads_much_rests_often(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    rests: list[float] = []
    monkeypatch.setattr(time, "sleep", rests.append)
    path = tmp_path / "artifact"
    path.write_bytes(bytes(8 * PIECE))
    data = read_up_to(path, 10 * PIECE)
    assert len(rests) == 8
    is_digest("", data)
    assert len(rests) == 15
    with io.BufferedReader(ThrottledFile(path)) as file:
        assert file.read(8 * PIECE) == data
    assert len(rests) == 23
    with io.BufferedReader(ThrottledFile(path)) as file:
        assert b"".join(iter(lambda: file.read(1000), b"")) == data
    assert len(rests) == 31, "small parts need no more rests than large ones"
