"""The unfinished output of a run: a part file beside the target, locked by its run and renamed at the end.

    out.csv  <─ renamed when complete ─  .out.csv.1f0c9a2b.headrace-part

The name depends on the target alone, so two runs with the same target meet. The lock (flock) ends with the process
that holds it, however it ends: a part file without a lock belongs to a dead run. The next run with its target
starts afresh, or goes on from its checkpoint; any run in its folder removes it after a week. On a file system
without locks, each run has a part file of its own, and none goes on.
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

import msgspec

from headrace.batch.checkpoint import SUFFIX, Checkpoint, read_checkpoint, remove_checkpoint, write_checkpoint
from headrace.errors import InvalidInput

if sys.platform != "win32":
    import fcntl

_SUFFIX = ".headrace-part"
#: Characters of the target's name in the name of its part file: 4 bytes each at most, of the 255 of a name.
_NAME_CHARACTERS = 40
#: Seconds for which the part file of a dead run stays, in case that somebody goes on with it.
_KEPT_SECONDS = 7 * 86_400
#: Errors of flock on file systems without locks.
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}
#: Seconds before a second try: a run that looks for dead parts locks each for a moment.
_PAUSE_SECONDS = 0.1
#: Refuses a symbolic link under the name of a part file: in a shared folder, it may point anywhere.
_NO_FOLLOW = getattr(os, "O_NOFOLLOW", 0)


class PartFile:
    """The part file of a run, with the checkpoint from which the run goes on; None for a new run."""

    def __init__(self, file: BinaryIO, checkpoint_path: Path | None, checkpoint: Checkpoint | None) -> None:
        self.file, self.checkpoint, self._checkpoint_path = file, checkpoint, checkpoint_path

    def save(self, checkpoint: Checkpoint) -> None:
        """Replace the checkpoint: all that was written to the file so far is complete."""
        if self._checkpoint_path is not None:
            self.file.flush()
            write_checkpoint(
                self._checkpoint_path, msgspec.structs.replace(checkpoint, bytes_written=self.file.tell())
            )


@contextmanager
def open_part_file(target: Path, *, run: str = "", resume: bool = False) -> Iterator[PartFile]:
    """Open the part file of a target, and rename it to the target at the end of the block.

    With `resume`, a run goes on where one with the same target and `run` (`describe_run`) has ended, and the part
    file stays after an exception. Otherwise it is new, and removed after an exception. Raises InvalidInput
    if the file cannot be created, if another run writes the same target, or if the part file is of another run.
    """
    remove_dead_parts(target.parent)
    try:
        part_path, file = _open_own(target)
    except OSError as error:
        raise InvalidInput(f"{target} cannot be written: {error.strerror}") from None
    checkpoint_path = find_checkpoint(target)
    has_own_name = part_path == _name_part(target)
    with file:
        checkpoint = _find_start(file, target, run) if has_own_name and resume else None
        if checkpoint is None:
            remove_checkpoint(checkpoint_path)
        file.truncate(checkpoint.bytes_written if checkpoint else 0)
        file.seek(0, os.SEEK_END)
        try:
            yield PartFile(file, checkpoint_path if has_own_name else None, checkpoint)
            file.flush()
            os.fsync(file.fileno())
            if sys.platform == "win32":
                file.close()  # an open file cannot be renamed there
            part_path.replace(target)  # under the lock: another run would start with this file
            remove_checkpoint(checkpoint_path)
        except BaseException:
            if not resume or not has_own_name:
                part_path.unlink(missing_ok=True)
                remove_checkpoint(checkpoint_path)
            raise


def find_checkpoint(target: Path) -> Path:
    """Return the path of the checkpoint of a target."""
    return _name_part(target).with_suffix(SUFFIX)


def _find_start(file: BinaryIO, target: Path, run: str) -> Checkpoint | None:
    """Return the checkpoint from which a run goes on; None to start afresh. Raises InvalidInput."""
    checkpoint = read_checkpoint(find_checkpoint(target))
    if checkpoint is None or file.seek(0, os.SEEK_END) < checkpoint.bytes_written:
        return None  # the machine was lost before the file was on its disk
    if checkpoint.run != run:
        raise InvalidInput(
            f"the unfinished output of {target} is that of another run: its input, model or options were others; "
            "run the same command, or start afresh without --resume"
        )
    return checkpoint


def remove_dead_parts(folder: Path) -> None:
    """Remove the part files in a folder whose runs have ended a week ago without removing them."""
    for part_path in folder.glob(f".*{_SUFFIX}"):
        with suppress(OSError):
            descriptor = os.open(part_path, os.O_RDWR | _NO_FOLLOW)
            try:
                is_old = time.time() - os.fstat(descriptor).st_mtime > _KEPT_SECONDS
                if is_old and _try_lock(descriptor) and _is_file_of(descriptor, part_path):
                    part_path.unlink()
                    remove_checkpoint(part_path.with_suffix(SUFFIX))
            finally:
                os.close(descriptor)


def _name_part(target: Path) -> Path:
    digest = hashlib.sha256(os.fsencode(target.name)).hexdigest()[:8]
    return target.with_name(f".{target.name[:_NAME_CHARACTERS]}.{digest}{_SUFFIX}")


def _open_own(target: Path) -> tuple[Path, BinaryIO]:
    """Open and lock the part file of a target. Return its path and the file."""
    part_path = _name_part(target)
    while True:
        descriptor = os.open(part_path, os.O_RDWR | os.O_CREAT | _NO_FOLLOW, 0o666)
        try:
            is_locked = _try_lock(descriptor) or _try_lock(descriptor, after=_PAUSE_SECONDS)
        except OSError as error:
            os.close(descriptor)
            if error.errno not in _NO_LOCKS:
                raise
            part_path.unlink(missing_ok=True)
            part_path = part_path.with_suffix(f".{uuid4().hex}{_SUFFIX}")
            return part_path, part_path.open("xb")
        if is_locked and _is_file_of(descriptor, part_path):
            return part_path, os.fdopen(descriptor, "r+b")
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
