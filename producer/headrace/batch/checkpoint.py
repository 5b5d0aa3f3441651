"""The checkpoint of a run: how far its part file is complete, so that a run after it can go on from there.

It lies beside the part file, and is replaced after each block of rows. What a run depends on is in it too: a run
goes on only with the same input, version and options, so that its output is that of an undisturbed one.
"""

from __future__ import annotations

import hashlib
from contextlib import suppress
from pathlib import Path

import msgspec

from headrace.wire.stored import DECODE_ERRORS

SUFFIX = ".headrace-progress"


class Checkpoint(msgspec.Struct, frozen=True, kw_only=True):
    """The state of a run after a block of rows. Everything before it is in the part file."""

    #: A digest of the input and the options (`describe_run`), and the version that predicts.
    run: str
    version: str
    rows: int = 0
    failed: int = 0
    #: The bytes of the input that were read, and of the part file that were written.
    bytes_read: int = 0
    bytes_written: int = 0


def describe_run(source: str, *options: object) -> str:
    """Return a digest of a run's input, by its path, size and time, and of its options; empty without a file."""
    path = Path(source)
    if source == "-" or not path.is_file():
        return ""
    stat = path.stat()
    facts = [str(path.resolve()), stat.st_size, stat.st_mtime_ns, *options]
    return hashlib.sha256(msgspec.json.encode(facts)).hexdigest()[:16]


def read_checkpoint(path: Path) -> Checkpoint | None:
    """Read a checkpoint; None if there is none that can be read."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Checkpoint)
    except (OSError, *DECODE_ERRORS):
        return None


def write_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Replace a checkpoint. A run that is killed in between leaves the former one."""
    new = path.with_name(f"{path.name}.new")
    new.unlink(missing_ok=True)
    with new.open("xb") as file:  # never through a symbolic link: in a shared folder, it may point anywhere
        file.write(msgspec.json.encode(checkpoint))
    new.replace(path)


def remove_checkpoint(path: Path) -> None:
    """Remove a checkpoint, if there is one."""
    for name in (path, path.with_name(f"{path.name}.new")):
        with suppress(OSError):
            name.unlink(missing_ok=True)
