"""The files that a reference to a file, a folder or a glob names, and the format that their names say."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable
from typing import Literal, NamedTuple
from urllib.parse import unquote

import msgspec

from headrace.errors import InvalidInput
from headrace_worker.bulk.locations import Locations

Format = Literal["parquet", "csv", "jsonl"]
Compression = Literal["gzip", "zstd"]

#: The ending of each format and, for CSV, the delimiter.
_ENDINGS: dict[str, tuple[Format, str | None]] = {
    ".parquet": ("parquet", None),
    ".pq": ("parquet", None),
    ".csv": ("csv", None),
    ".tsv": ("csv", "\t"),
    ".jsonl": ("jsonl", None),
    ".ndjson": ("jsonl", None),
}
_COMPRESSIONS: dict[str, Compression] = {".gz": "gzip", ".gzip": "gzip", ".zst": "zstd", ".zstd": "zstd"}
#: The endings that people read in messages.
READABLE_ENDINGS = "parquet, csv, tsv, jsonl or ndjson; the text formats also with .gz or .zst"

_GLOB = re.compile(r"[*?\[]")
_NO_NAME = re.compile(r"(?!)")
_PARTITION = re.compile(r"([^=/]+)=([^/]*)")
#: The value that Hive writes for null.
_HIVE_NULL = "__HIVE_DEFAULT_PARTITION__"

#: The files of one run. A list of a million takes some 300 MB.
MAX_FILES = 1_000_000


class FileForm(NamedTuple):
    """The format of a file, as its name says."""

    format: Format
    #: None: not compressed. (Parquet compresses its own pages.)
    compression: Compression | None = None
    #: The delimiter of a CSV. None: detected from its header.
    delimiter: str | None = None
    #: The ending, with that of the compression: `.csv.gz`.
    ending: str = ""


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """A file of a table."""

    reference: str
    #: In bytes.
    size: int
    #: Identifies its content: the size, and the etag or the time of the last write.
    content: str


def read_form(reference: str) -> FileForm:
    """Return the format that the name of a file says. Raises InvalidInput."""
    form = _find_form(reference)
    if form is None:
        raise InvalidInput(f"{reference}: the ending of the name says no format; it is one of {READABLE_ENDINGS}")
    return form


def list_sources(locations: Locations, reference: str) -> list[Source]:
    """List the files that a reference names, ordered by name: a file, a folder with all below it, or a glob.

    In a glob, `*` and `?` stay within a name, and `**` is any number of folders. Files and folders whose names
    begin with `.` or `_` are left out. Raises InvalidInput if there is no file, or if a file has an unknown
    ending.
    """
    folder = reference
    is_match = None
    if _GLOB.search(reference):
        folder, pattern = _split_glob(reference)
        is_match = compile_glob(pattern)
    file = locations.resolve(folder)
    sources: list[Source] = []
    other: str | None = None
    for facts in file.storage.walk(file.path):
        relative = facts.path.removeprefix(file.path).lstrip("/")
        if is_match is not None and not is_match(relative):
            continue
        listed = f"{folder.partition(':')[0]}:{facts.path}"
        if _find_form(listed) is None:
            other = listed
            if is_match is not None or facts.path == file.path:
                break
            continue
        sources.append(Source(reference=listed, size=facts.size, content=facts.content))
        if len(sources) > MAX_FILES:
            raise InvalidInput(f"{reference} names more than {MAX_FILES:,} files; name fewer, or join them")
    if other is not None and (not sources or is_match is not None):
        read_form(other)
    if not sources:
        raise InvalidInput(f"{reference} names no file")
    return sorted(sources, key=lambda source: source.reference)


def read_partitions(reference: str) -> dict[str, str | None]:
    """Return the columns that the folders of a path set, as Hive names them: `country=de/month=11/a.parquet`."""
    folders = reference.partition(":")[2].split("/")[:-1]
    matches = [match for folder in folders if (match := _PARTITION.fullmatch(folder))]
    return {unquote(match[1]): None if match[2] == _HIVE_NULL else unquote(match[2]) for match in matches}


def name_chunk(output: str, chunk: int, source: str, ending: str | None = None) -> str:
    """Return the reference of a chunk's part: `out:scores/part-00017.parquet`.

    Its format is that of the source, or the one whose ending is named.
    """
    suffix = ending or read_form(source).ending
    separator = "" if output.endswith((":", "/")) else "/"
    return f"{output}{separator}part-{chunk:05}{suffix}"


def compile_glob(pattern: str) -> Callable[[str], bool]:
    """Return the function that decides whether a path matches a glob. Raises InvalidInput.

    It walks the names of the path once for each name of the pattern, so no pattern takes long.
    """
    names = pattern.split("/")
    if any("**" in name and name != "**" for name in names):
        raise InvalidInput(f"{pattern!r}: '**' stands alone between two '/'")
    if names[-1] == "**":
        names.append("*")
    #: None: any number of folders.
    expressions = [None if name == "**" else re.compile(fnmatch.translate(name)) for name in names]

    def reach(positions: set[int]) -> set[int]:
        for position in sorted(positions):
            while position < len(expressions) and expressions[position] is None:
                position += 1  # noqa: PLW2901
                positions.add(position)
        return positions

    def matches(path: str) -> bool:
        positions = reach({0})
        for name in path.split("/"):
            following = set()
            for position in positions:
                expression = expressions[position] if position < len(expressions) else _NO_NAME
                if expression is None:
                    following.add(position)
                elif expression.fullmatch(name):
                    following.add(position + 1)
            positions = reach(following)
        return len(expressions) in positions

    return matches


def _split_glob(reference: str) -> tuple[str, str]:
    """Return the folder in front of the first name with a wildcard, and the pattern below it."""
    location, _, path = reference.partition(":")
    names = path.split("/")
    first = next(index for index, name in enumerate(names) if _GLOB.search(name))
    return f"{location}:{'/'.join(names[:first])}", "/".join(names[first:])


def _find_form(reference: str) -> FileForm | None:
    name = reference.rpartition("/")[2].rpartition(":")[2].lower()
    stem, compression, compression_ending = name, None, ""
    for ending, kind in _COMPRESSIONS.items():
        if name.endswith(ending):
            stem, compression, compression_ending = name.removesuffix(ending), kind, ending
    dot = stem.rfind(".")
    ending = stem[dot:] if dot >= 0 else ""
    if ending not in _ENDINGS or (compression and ending in {".parquet", ".pq"}):
        return None
    file_format, delimiter = _ENDINGS[ending]
    return FileForm(file_format, compression, delimiter, ending + compression_ending)
