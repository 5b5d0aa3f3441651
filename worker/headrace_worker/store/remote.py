"""A model store at a URL that fsspec knows: `s3://bucket/prefix`, `gs://...`, `az://...`.

    <store>/<model>/<version>/claim           whose the number is: the first to be written
                              artifact.skops
                              manifest.json   the last: without it there is no version

Such a store renames nothing in one step. A writer claims a number instead, by a file that is only written
where there is none (If-None-Match). A store that heeds no such condition is found out by trying, and claims are
made there in another way: each writer leaves a claim of its own, and has the number if no other's is there.

What was read is kept (`cache`): where the store is away, what is here serves on.
"""

from __future__ import annotations

import logging
import os
import random
import re
import socket
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

from headrace.errors import HeadraceError, ModelError, StoreUnavailable
from headrace_worker.store.backend import MANIFEST, NUMBER, Rest, Unfinished
from headrace_worker.store.cache import Cache, CachedFile, CachedStore, is_digest

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

log = logging.getLogger("headrace.models")
T = TypeVar("T")

#: Seconds after which the store is asked again what it has; longer in forked processes, as their parent asks.
_LOOK_EVERY, _LOOK_EVERY_FORKED = 2.0, 60.0
_CLAIM = "claim"
#: Tells whether the store heeds conditions.
_PROBE = ".conditions"
#: Seconds until a writer that met another tries for the next number, at the most.
_STEP_BACK = 0.2


class Remote:
    """The versions at a URL. For many threads, and for processes forked from this one.

    With a cache, what the store has is asked for in the background, and may be a few seconds old.
    """

    def __init__(self, url: str, cache: Cache | None = None) -> None:
        self._url, self._cache = url, cache
        self._known = cache.open(url) if cache else None
        self._files: AbstractFileSystem | None = None
        self._root = ""
        self._pid = self._made_in = os.getpid()
        self._seen: CachedFile | None = None
        self._looking = threading.Lock()
        self._away = False
        self._heeds_conditions: bool | None = None

    @property
    def title(self) -> str:
        """The URL, without a password."""
        return _without_password(self._url)

    # --- reading

    def versions(self) -> Mapping[str, list[str]]:
        """The numbers there are, by model. Of a store that is away, those that were there last."""
        if self._known is None:
            return self._list()
        seen = self._seen
        if seen is None:
            return self._first_look(self._known).versions
        if _age(seen) >= _LOOK_EVERY and (newer := self._known.cached_versions()) and newer.read_at > seen.read_at:
            seen = self._seen = newer  # another process has asked
        if _age(seen) >= (_LOOK_EVERY if os.getpid() == self._made_in else _LOOK_EVERY_FORKED):
            self._look_in_background()
        return seen.versions

    def read(
        self, model: str, version: str, name: str, *, most: int, digest: str | None = None, fresh: bool = False
    ) -> bytes:
        """A file of a version: no more than `most` bytes and one."""
        if self._cache is None or self._known is None:
            return self._get(f"{model}/{version}/{name}", most)
        found = None
        if not fresh:
            found = self._cache.artifact(digest, most) if digest else self._known.read(model, version, name)
        if found is not None and len(found) <= most:
            return found
        data = self._get(f"{model}/{version}/{name}", most)
        if digest is None:
            self._known.put(model, version, name, data)
        elif is_digest(digest, data):
            self._cache.put_artifact(digest, data)
        return data

    def size(self, model: str, version: str) -> int:
        """Bytes a version takes."""
        return sum(self._under(f"{model}/{version}").values())

    def _first_look(self, known: CachedStore) -> CachedFile:
        last = known.cached_versions()
        if last is not None and _age(last) < _LOOK_EVERY:
            self._seen = last
            return last
        try:
            return self._look()
        except StoreUnavailable as error:
            if last is None:
                raise
            log.warning("%s; what is here of it serves", error)
            self._away, self._seen = True, CachedFile(read_at=time.time(), versions=last.versions)
            return self._seen

    def _look_in_background(self) -> None:
        """Ask the store what it has, without making anyone wait who has something to go on with."""
        self._notice_fork()
        if self._looking.acquire(blocking=False):
            threading.Thread(target=self._look_once, name="headrace-store", daemon=True).start()

    def _look_once(self) -> None:
        try:
            self._look()
        except HeadraceError as error:
            if not self._away:
                log.warning("%s; what is here of it serves on", error)
            self._away = True
            if self._seen is not None:  # asked in vain is asked: not again at once
                self._seen = CachedFile(read_at=time.time(), versions=self._seen.versions)
        else:
            if self._away:
                log.warning("the model store %s is back", self.title)
            self._away = False
        finally:
            self._looking.release()

    def _look(self) -> CachedFile:
        seen = self._seen = CachedFile(read_at=time.time(), versions=self._list())
        if self._known is not None:
            self._known.keep_versions(seen)
        return seen

    def _list(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for path in self._under(""):
            match path.split("/"):
                case [model, number, name] if name == MANIFEST and NUMBER.fullmatch(number):
                    found.setdefault(model, []).append(number)
        return found

    # --- writing

    def publish(self, model: str, artifacts: Mapping[str, bytes], rest: Rest) -> str:
        """Store a new version under the next number."""
        number = max(self._numbers_begun(model), default=0) + 1
        while not self._claim(model, str(number)):
            time.sleep(random.uniform(0, _STEP_BACK))  # noqa: S311  # so that two do not meet again
            number += 1
        for name, data in {**artifacts, **rest(str(number))}.items():
            self.put(model, str(number), name, data)
        return str(number)

    def put(self, model: str, version: str, name: str, data: bytes) -> None:
        """Add a file to a version."""
        try:
            self._ask(lambda files, root: files.pipe_file(f"{root}/{model}/{version}/{name}", data))
        except FileNotFoundError:
            raise ModelError(f"the model store {self.title} is not there; create the bucket first") from None

    def remove(self, model: str, version: str) -> None:
        """Remove a version: its manifest first, its claim last, so that nobody takes the number meanwhile."""
        names = [path.rpartition("/")[2] for path in self._under(f"{model}/{version}")]
        for name in sorted(names, key=lambda name: (name != MANIFEST, name.startswith(_CLAIM))):
            self._delete(f"{model}/{version}/{name}")

    def unfinished(self, before: datetime) -> list[Unfinished]:
        """What was begun before that moment and never became a version."""
        begun: dict[tuple[str, str], dict[str, int]] = {}
        for path, size in self._under("").items():
            match path.split("/"):
                case [model, number, name] if NUMBER.fullmatch(number):
                    begun.setdefault((model, number), {})[name] = size
        return [
            Unfinished(model=model, name=number, size=sum(names.values()))
            for (model, number), names in begun.items()
            # The claim of a number stays: a writer that slept for a day does not meet another.
            if MANIFEST not in names
            and not all(name.startswith(_CLAIM) for name in names)
            and all(self._changed(f"{model}/{number}/{name}") < before for name in names)
        ]

    def clear(self, leftover: Unfinished) -> None:
        """Remove a leftover, but for the claim of its number."""
        for path in self._under(f"{leftover.model}/{leftover.name}"):
            if not path.rpartition("/")[2].startswith(_CLAIM):
                self._delete(path)

    def _numbers_begun(self, model: str) -> set[int]:
        return {int(number) for path in self._under(model) if NUMBER.fullmatch(number := path.split("/")[1])}

    def _claim(self, model: str, version: str) -> bool:
        """Whether the number is ours now, and ours alone."""
        token = f"{socket.gethostname()} {os.getpid()} {uuid.uuid4().hex}".encode()
        if self._conditions_count():
            # A write whose reply was lost is sent again, and then meets itself.
            return self._create(f"{model}/{version}/{_CLAIM}", token) or (
                self._get(f"{model}/{version}/{_CLAIM}", len(token)) == token
            )
        own = f"{_CLAIM}.{uuid.uuid4().hex}"
        self.put(model, version, own, token)
        # Of two that write and then look, one sees the other at least.
        if [path.rpartition("/")[2] for path in self._under(f"{model}/{version}")] == [own]:
            return True
        self._delete(f"{model}/{version}/{own}")
        return False

    def _conditions_count(self) -> bool:
        if self._heeds_conditions is None:
            self._heeds_conditions = not self._create(_PROBE, b"") or not self._create(_PROBE, b"")
        return self._heeds_conditions

    def _create(self, path: str, data: bytes) -> bool:
        """Write a file where there is none; whether that was so."""
        try:
            self._ask(lambda files, root: files.pipe_file(f"{root}/{path}", data, mode="create"))
        except FileExistsError:
            return False
        except FileNotFoundError:
            raise ModelError(f"the model store {self.title} is not there; create the bucket first") from None
        return True

    # --- the store itself

    def _get(self, path: str, most: int) -> bytes:
        data: bytes = self._ask(lambda files, root: files.cat_file(f"{root}/{path}", start=0, end=most + 1))
        return data

    def _under(self, path: str) -> dict[str, int]:
        """The files under a path and their sizes, as the store has them now."""

        def find(files: AbstractFileSystem, root: str) -> dict[str, int]:
            files.invalidate_cache()
            try:
                found = files.find(f"{root}/{path}" if path else root, detail=True)
            except FileNotFoundError:
                return {}
            return {name.removeprefix(root).lstrip("/"): about["size"] or 0 for name, about in found.items()}

        return self._ask(find)

    def _changed(self, path: str) -> datetime:
        changed: datetime = self._ask(lambda files, root: files.modified(f"{root}/{path}"))
        return changed if changed.tzinfo else changed.replace(tzinfo=UTC)

    def _delete(self, path: str) -> None:
        with suppress(FileNotFoundError):  # somebody else was quicker
            self._ask(lambda files, root: files.rm_file(f"{root}/{path}"))

    def _ask(self, call: Callable[[AbstractFileSystem, str], T]) -> T:
        self._notice_fork()
        if self._files is None:
            self._files, self._root = _connect(self._url)
        try:
            return call(self._files, self._root)
        except (FileNotFoundError, FileExistsError, MemoryError, HeadraceError):
            raise
        except Exception as error:  # each kind of store has errors of its own
            raise StoreUnavailable(f"the model store {self.title} is away: {_said(error)}") from error

    def _notice_fork(self) -> None:
        """Neither connections nor threads, nor what they held, come along to a forked process."""
        if os.getpid() != self._pid:
            self._files, self._pid, self._looking = None, os.getpid(), threading.Lock()


def _connect(url: str) -> tuple[AbstractFileSystem, str]:
    title = _without_password(url)
    try:
        from fsspec.core import url_to_fs
    except ImportError:
        raise ModelError(
            f"the model store {title} is no folder: pip install 'headrace-worker[s3]', or fsspec and what it "
            "needs for such a URL"
        ) from None
    try:
        found: tuple[Any, str] = url_to_fs(url)
    except (ImportError, ValueError) as error:
        raise ModelError(f"the model store {title} cannot be used: {_said(error)}") from None
    return found[0], found[1].rstrip("/")


def _age(seen: CachedFile) -> float:
    """Seconds since the store was asked; without end where this machine's clock was set back since."""
    age = time.time() - seen.read_at
    return age if age >= 0 else float("inf")


def _without_password(text: str) -> str:
    return re.sub(r"//[^/@\s]*@", "//", text)


def _said(error: Exception) -> str:
    said = " ".join(_without_password(str(error)).split())
    return f"{type(error).__name__}: {said[:200]}" if said else type(error).__name__
