"""Large bytes are read, hashed and written in chunks, unchanged."""

from __future__ import annotations

import hashlib
import io
import os
import time
from pathlib import Path

import pytest

from headrace_worker.store import chunks
from headrace_worker.store.cache import has_digest
from headrace_worker.store.chunks import CHUNK_BYTES, ThrottledFile
from headrace_worker.store.folder import read_up_to

SIZES = [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 3 * CHUNK_BYTES + 7]


@pytest.mark.parametrize("size", SIZES)
def test_joined_chunks_are_the_data(size: int):
    data = os.urandom(size)
    assert b"".join(chunks.split(data)) == data
    assert has_digest(data, hashlib.sha256(data).hexdigest())


@pytest.mark.parametrize("size", SIZES)
def test_a_file_is_read_unchanged_and_no_further_than_its_limit(size: int, tmp_path: Path):
    file, data = tmp_path / "artifact", os.urandom(size)
    file.write_bytes(data)
    assert read_up_to(file, 10 * CHUNK_BYTES) == data
    assert read_up_to(file, CHUNK_BYTES) == data[: CHUNK_BYTES + 1]


def test_a_pipe_that_returns_little_is_read_to_its_end():
    class Pipe(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            return super().read(min(size or 1, 1000))

    data = os.urandom(10_001)
    assert chunks.read(Pipe(data), 1 << 20) == data


@pytest.mark.parametrize("size", SIZES)
def test_a_throttled_file_reads_the_same_at_any_position(size: int, tmp_path: Path):
    path, data = tmp_path / "artifact", os.urandom(size)
    path.write_bytes(data)
    with io.BufferedReader(ThrottledFile(path)) as file:
        assert file.read() == data
        file.seek(size // 2)
        assert file.read(100) == data[size // 2 : size // 2 + 100]


def test_reading_pauses_once_for_each_chunk(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    pauses: list[float] = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    path = tmp_path / "artifact"
    path.write_bytes(bytes(8 * CHUNK_BYTES))
    data = read_up_to(path, 10 * CHUNK_BYTES)
    assert len(pauses) == 8
    has_digest(data, "")
    assert len(pauses) == 15
    with io.BufferedReader(ThrottledFile(path)) as file:
        assert file.read(8 * CHUNK_BYTES) == data
    assert len(pauses) == 23
    with io.BufferedReader(ThrottledFile(path)) as file:
        assert b"".join(iter(lambda: file.read(1000), b"")) == data
    assert len(pauses) == 31, "small reads cause no more pauses than large ones"
