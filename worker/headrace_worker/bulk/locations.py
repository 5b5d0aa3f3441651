"""Locations: the names of folders and buckets, from the settings of a worker, and references to files below them.

`HEADRACE_LOCATIONS=in=s3://lake/in:r,out=/srv/out:w` has the locations `in`, to read, and `out`, to write. A
message holds references only, `in:2026-11/a.parquet`: no URL, no absolute path and no credentials.
"""

from __future__ import annotations

import importlib.util
import re
from typing import NamedTuple

from headrace.errors import InvalidInput, SettingError
from headrace_worker.bulk.folder import Folder
from headrace_worker.bulk.object_store import ObjectStore
from headrace_worker.bulk.storage import Storage

_LOCATION_NAME = re.compile(r"[a-z][a-z0-9_-]{0,31}")
_URL = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)
_MODES = {"r": (True, False), "w": (False, True), "rw": (True, True)}
_MAX_REFERENCE, _MAX_NAME_BYTES = 1024, 255
_CONTROL = re.compile(r"[\x00-\x1f\x7f\\]")


class File(NamedTuple):
    """A reference that was resolved: a path below a location."""

    storage: Storage
    path: str
    reference: str


class Location(NamedTuple):
    """A folder or bucket that workers may read, write, or both."""

    name: str
    #: An absolute path, or a URL that fsspec knows.
    url: str
    is_readable: bool
    is_writable: bool


class Locations:
    """The locations of a worker, by name.

    `setting` is the value of HEADRACE_LOCATIONS. Raises SettingError if it has another form.
    """

    def __init__(self, setting: str) -> None:
        self._locations = parse_locations(setting)
        self._storages: dict[str, Storage] = {}

    def resolve(self, reference: str, *, for_writing: bool = False) -> File:
        """Return the file or folder that a reference names. It need not exist.

        Raises InvalidInput for a reference that is none, or that names a location that is unknown, or is not for
        reading or writing. For writing, no name in the path begins with `.` or `_`: those are Headrace's own.
        """
        name, path = parse_reference(reference)
        location = self._locations.get(name)
        if location is None:
            names = ", ".join(sorted(self._locations)) or "none"
            raise InvalidInput(f"there is no location {name!r} (HEADRACE_LOCATIONS of this worker has: {names})")
        if for_writing and not location.is_writable:
            raise InvalidInput(f"{reference}: the location {name!r} is for reading only; write to another")
        if not for_writing and not location.is_readable:
            raise InvalidInput(f"{reference}: the location {name!r} is for writing only; read from another")
        if for_writing and any(part_name.startswith((".", "_")) for part_name in path.split("/")):
            raise InvalidInput(f"{reference}: names that begin with '.' or '_' are Headrace's own; choose another")
        return File(self._storage(location), path, reference)

    def own_file(self, reference: str, suffix: str) -> File:
        """Return a file of Headrace's own below a folder of outputs: `_headrace/run.json`, `_SUCCESS`."""
        folder = self.resolve(reference, for_writing=True)
        return File(folder.storage, join(folder.path, suffix), join_reference(reference, suffix))

    def _storage(self, location: Location) -> Storage:
        storage = self._storages.get(location.name)
        if storage is None:
            storage = self._storages[location.name] = _open_storage(location)
        return storage


def check_locations(setting: str) -> None:
    """Check the value of HEADRACE_LOCATIONS before anything runs. Raises SettingError."""
    if parse_locations(setting) and importlib.util.find_spec("pyarrow") is None:
        raise SettingError(
            "HEADRACE_LOCATIONS needs pyarrow for bulk runs: pip install 'headrace-worker[parquet]'"
        )


def parse_locations(setting: str) -> dict[str, Location]:
    """Return the locations of a value of HEADRACE_LOCATIONS, by name. Raises SettingError."""
    locations: dict[str, Location] = {}
    for number, item in enumerate(setting.split(","), start=1):
        if not item.strip():
            continue
        name, is_assignment, rest = item.strip().partition("=")
        url, _, mode = rest.rpartition(":")
        form = "HEADRACE_LOCATIONS is name=folder:r or name=URL:w, with commas between locations"
        title = f"location {number}" if "@" in name else repr(name)  # a URL without a name may have a password
        if not (is_assignment and url) or mode not in _MODES:
            raise SettingError(f"{form}; {title} lacks its name, its folder, or its mode: r, w or rw")
        if not _LOCATION_NAME.fullmatch(name):
            raise SettingError(f"{form}; the name {title} is not 1 to 32 of a-z, 0-9, '-' and '_', a letter first")
        if name in locations:
            raise SettingError(f"{form}; {name!r} is there twice")
        url = url.removeprefix("file://") if url.startswith("file:///") else url
        if not _URL.match(url) and not url.startswith("/"):
            raise SettingError(f"{form}; the folder of {name!r} is not an absolute path or a URL")
        is_readable, is_writable = _MODES[mode]
        locations[name] = Location(name, url.rstrip("/") or "/", is_readable, is_writable)
    return locations


def parse_reference(reference: str) -> tuple[str, str]:
    """Return the location and the path of a reference. Raises InvalidInput."""
    title = repr(reference[:200])
    name, has_location, path = reference.partition(":")
    if not has_location or not _LOCATION_NAME.fullmatch(name):
        raise InvalidInput(f"{title} is no reference: write location:path, such as in:2026-11/a.parquet")
    if path.startswith("/"):
        raise InvalidInput(
            f"{title} is a URL or an absolute path; a reference is location:path, with a path below the location"
        )
    path = path.removesuffix("/")
    if len(reference) > _MAX_REFERENCE:
        raise InvalidInput(f"{title}... is longer than {_MAX_REFERENCE} characters")
    for folder_name in path.split("/") if path else ():
        if folder_name in {"", ".", ".."}:
            raise InvalidInput(f"{title} has a name that is empty, '.' or '..'; name the path below the location")
        if _CONTROL.search(folder_name) or len(folder_name.encode("utf-8", "replace")) > _MAX_NAME_BYTES:
            raise InvalidInput(f"{title} has a control character, a backslash or a name longer than 255 bytes")
    return name, path


def join(folder: str, name: str) -> str:
    """Return the path of a file in a folder; "" is the location itself."""
    return f"{folder}/{name}" if folder else name


def join_reference(reference: str, name: str) -> str:
    """Return the reference of a file in the folder that a reference names."""
    return f"{reference}{name}" if reference.endswith((":", "/")) else f"{reference}/{name}"


def parent_reference(reference: str) -> str:
    """Return the reference of the folder that a file is in."""
    folder, is_deep, _ = reference.rpartition("/")
    return folder if is_deep else reference.partition(":")[0] + ":"


def _open_storage(location: Location) -> Storage:
    if not _URL.match(location.url):
        return Folder(location.name, location.url)
    return ObjectStore(location.name, location.url)
