"""Mutate what is inside a packed input: an archive, a compressed file, the body of a request."""

from __future__ import annotations

import gzip
import io
import random
import zipfile
import zlib

import pyarrow as pa

from tests.fuzz.mutations import mutate

#: What decompressing mutated bytes raises.
_DAMAGED = (OSError, EOFError, zlib.error, zipfile.BadZipFile, NotImplementedError, RuntimeError, ValueError)
#: Bytes of a decompressed input.
_MAX_BYTES = 2**20


def mutate_archive(data: bytes, others: list[bytes], chance: random.Random) -> bytes:
    """Mutate a file of a zip archive, or its name; sometimes the bytes of the archive."""
    if chance.random() < 0.2:
        return mutate(data, others, chance)
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            files = {name: archive.read(name) for name in archive.namelist()}
    except (*_DAMAGED, KeyError, pa.ArrowException):
        return mutate(chance.choice(others), others, chance)
    if not files:
        return mutate(chance.choice(others), others, chance)
    name = "schema.json" if "schema.json" in files and chance.random() < 0.6 else chance.choice(list(files))
    files[name] = mutate(files[name], list(files.values()), chance)
    if chance.random() < 0.1:
        files[chance.choice(("schema.json", "a.npy", "a.npz", "../a", "a"))] = files.pop(name)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name), content)
    return buffer.getvalue()


def mutate_gzip(data: bytes, others: list[bytes], chance: random.Random) -> bytes:
    """Mutate the content of a gzip file; sometimes the bytes of the file."""
    if chance.random() < 0.3:
        return mutate(data, others, chance)
    try:
        content = zlib.decompressobj(wbits=31).decompress(data, _MAX_BYTES)
    except _DAMAGED:
        return mutate(chance.choice(others), others, chance)
    return gzip.compress(mutate(content, [content], chance), mtime=0)


def mutate_zstd(data: bytes, others: list[bytes], chance: random.Random) -> bytes:
    """Mutate the content of a zstd file; sometimes the bytes of the file."""
    if chance.random() < 0.3:
        return mutate(data, others, chance)
    try:
        content = pa.CompressedInputStream(pa.BufferReader(data), "zstd").read(_MAX_BYTES)
    except (*_DAMAGED, pa.ArrowException):
        return mutate(chance.choice(others), others, chance)
    return zstd(mutate(content, [content], chance))


def zstd(data: bytes) -> bytes:
    """Compress data."""
    buffer = pa.BufferOutputStream()
    with pa.CompressedOutputStream(buffer, "zstd") as stream:
        stream.write(data)
    compressed: bytes = buffer.getvalue().to_pybytes()
    return compressed


def mutate_request(data: bytes, others: list[bytes], chance: random.Random) -> bytes:
    """Mutate the body of a request, its head, or join the head of one to the body of another."""
    head, blank, body = data.partition(b"\r\n\r\n")
    choice = chance.random()
    if choice < 0.5 and body:
        return head + blank + mutate(body, [other.partition(blank)[2] for other in others], chance)
    if choice < 0.6:
        return head + blank + chance.choice(others).partition(b"\r\n\r\n")[2]
    if choice < 0.95:
        return mutate_lines(head, [other.partition(b"\r\n\r\n")[0] for other in others], chance) + blank + body
    return mutate(data, others, chance)


def mutate_lines(data: bytes, others: list[bytes], chance: random.Random) -> bytes:
    """Mutate one line, leave it out, repeat it, or take one of another input."""
    lines = data.split(b"\n")
    position = chance.randrange(len(lines))
    choice = chance.random()
    if choice < 0.5:
        lines[position] = mutate(lines[position], others, chance)
    elif choice < 0.65:
        lines.insert(position, chance.choice(chance.choice(others).split(b"\n")))
    elif choice < 0.8:
        lines[position] = chance.choice(chance.choice(others).split(b"\n"))
    elif choice < 0.9:
        del lines[position]
    else:
        lines.insert(position, lines[position])
    return b"\n".join(lines)
