"""The unfinished output of a run: a part file beside the target, locked by its run and renamed at the end.

    out.csv  <─ renamed when complete ─  .out.csv.1f0c9a2b.headrace-part

The name depends on the target alone, so two runs with the same target meet. The lock (flock) ends with the process
that holds it, however it ends: a part file without a lock belongs to a dead run, and the next run in its folder
removes it. On a file system without locks, each run has a part file of its own.
"""

from __future__ import annotations

import errno
import hashlib
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO
from uuid import uuid4

from headrace.errors import InvalidInput

if sys.platform != "win32":
    import fcntl

_SUFFIX = ".headrace-part"
#: Characters of the target's name in the name of its part file: 4 bytes each at most, of the 255 of a name.
_NAME_CHARACTERS = 40
#: Errors of flock on file systems without locks.
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}
#: Seconds before a second try: a run that looks for dead parts locks each for a moment.
_PAUSE_SECONDS = 0.1
#: Refuses a symbolic link under the name of a part file: in a shared folder, it may point anywhere.
_NO_FOLLOW = getattr(os, "O_NOFOLLOW", 0)


@contextmanager
def open_part_file(target: Path) -> Iterator[BinaryIO]:
    """Open the part file of a target, and rename it to the target at the end of the block.

    After an exception the part file is removed. Raises InvalidInput if the file cannot be created, or if another
    run writes the same target.
    """
    remove_dead_parts(target.parent)
    try:
        part_path, file = _open_own(target)
    except OSError as error:
        raise InvalidInput(f"{target} cannot be written: {error.strerror}") from None
    with file:
        try:
            yield file
            file.flush()
            os.fsync(file.fileno())
            if sys.platform == "win32":
                file.close()  # an open file cannot be renamed there
            part_path.replace(target)  # under the lock: another run would start with this file
        except BaseException:
            part_path.unlink(missing_ok=True)
            raise


def remove_dead_parts(folder: Path) -> None:
    """Remove the part files in a folder whose runs have ended without removing them."""
    for part_path in folder.glob(f".*{_SUFFIX}"):
        with suppress(OSError):
            descriptor = os.open(part_path, os.O_RDWR | _NO_FOLLOW)
            try:
                if _try_lock(descriptor) and _is_file_of(descriptor, part_path):
                    part_path.unlink()
            finally:
                os.close(descriptor)


def _open_own(target: Path) -> tuple[Path, BinaryIO]:
    """Open and lock the part file of a target. Return its path and the empty file."""
    digest = hashlib.sha256(os.fsencode(target.name)).hexdigest()[:8]
    stem = f".{target.name[:_NAME_CHARACTERS]}.{digest}"
    part_path = target.with_name(stem + _SUFFIX)
    while True:
        descriptor = os.open(part_path, os.O_RDWR | os.O_CREAT | _NO_FOLLOW, 0o666)
        try:
            is_locked = _try_lock(descriptor) or _try_lock(descriptor, after=_PAUSE_SECONDS)
        except OSError as error:
            os.close(descriptor)
            if error.errno not in _NO_LOCKS:
                raise
            part_path.unlink(missing_ok=True)
            part_path = target.with_name(f"{stem}.{uuid4().hex}{_SUFFIX}")
            return part_path, part_path.open("xb")
        if is_locked and _is_file_of(descriptor, part_path):
            os.ftruncate(descriptor, 0)
            return part_path, os.fdopen(descriptor, "wb")
        os.close(descriptor)
        if not is_locked:
            raise InvalidInput(f"another run writes {target} now; wait for it, or stop it")
        # The run of this file has renamed or removed it in between.


def _try_lock(descriptor: int, *, after: float = 0.0) -> bool:
    """Lock an open file; return False if another run holds it. Raises OSError without locks."""
    time.sleep(after)
    if sys.platform == "win32":
        raise OSError(errno.ENOSYS, "no locks")
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_file_of(descriptor: int, path: Path) -> bool:
    """Decide whether an open file still has this name."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.lstat())
    except FileNotFoundError:
        return False
