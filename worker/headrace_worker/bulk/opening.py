"""Open a file of a table, and refuse one that is no longer the file that was planned."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

from headrace.errors import InvalidInput
from headrace_worker.bulk.locations import File
from headrace_worker.bulk.storage import FileFacts


@contextmanager
def open_unchanged(file: File, content: str | None) -> Iterator[tuple[BinaryIO, FileFacts]]:
    """Open a file whose content is the one that was planned. None: unchecked.

    Raises InvalidInput if it is another, or is another when the block ends: rows of two files are never mixed.
    """
    with file.storage.open(file.path) as (opened, facts):
        if content is not None and facts.content != content:
            raise _is_changed(file)
        yield opened, facts
        if not file.storage.has_content(opened, facts):
            raise _is_changed(file)


def _is_changed(file: File) -> InvalidInput:
    return InvalidInput(
        f"{file.reference} has changed since the run was planned, and rows of two files are not mixed; start a "
        "new run with another name and output"
    )
