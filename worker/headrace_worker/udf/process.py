"""The versions loaded in this process: each is verified and proven once, however many callables name it."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec
from threadpoolctl import ThreadpoolController

from headrace.settings import load_settings
from headrace_worker.models.loader import LoadedModel, load
from headrace_worker.settings import WorkerSettings
from headrace_worker.store.store import Store
from headrace_worker.udf.pinned import PinnedVersion


class ProvenVersion:
    """A version in memory. Its bytes were verified, and its example gave the expected predictions."""

    def __init__(self, loaded: LoadedModel, threads: int) -> None:
        self.loaded = loaded
        # Loading has loaded the libraries of linear algebra that the model uses.
        self._thread_pools, self._threads = ThreadpoolController(), threads
        self._lock = threading.Lock()

    @contextmanager
    def use(self) -> Iterator[LoadedModel]:
        """Yield the model to one thread at a time, with as many threads of linear algebra as in a worker.

        Runtimes are for one thread. The engine's own code has its threads back after the block.
        """
        with self._lock, self._thread_pools.limit(limits=self._threads):
            yield self.loaded


class _Process:
    """The versions of one process, by what they were pinned to."""

    def __init__(self) -> None:
        self.versions: dict[PinnedVersion, ProvenVersion] = {}
        self.lock = threading.Lock()


#: By process id. A forked process loads its versions itself: threads of its parent may hold locks, and what a
#: runtime has loaded before the fork need not work after it. Its parent's versions stay in memory, as freeing
#: them may wait for threads that only the parent has.
_processes: dict[int, _Process] = {}


def load_once(pinned: PinnedVersion) -> ProvenVersion:
    """Return the version, loaded and proven in this process with the settings of its environment.

    Threads that need it at once wait for one load. Raises ModelError if it must not serve or is another version
    than the pinned one, UnknownModel if it was removed, and StoreUnavailable. An error is not remembered.
    """
    process = _processes.setdefault(os.getpid(), _Process())
    if proven := process.versions.get(pinned):
        return proven
    with process.lock:
        if pinned not in process.versions:
            process.versions[pinned] = _load(pinned)
        return process.versions[pinned]


def open_store(pinned: PinnedVersion) -> tuple[Store, WorkerSettings]:
    """Return the store of a version, and the settings of this process with that store."""
    settings = msgspec.structs.replace(load_settings(WorkerSettings), models=pinned.store)
    return Store.from_settings(settings, cached=True), settings


def _load(pinned: PinnedVersion) -> ProvenVersion:
    store, settings = open_store(pinned)
    pinned.check(store.read_manifest(pinned.model, pinned.version))
    loaded = load(
        store,
        pinned.model,
        pinned.version,
        max_bytes=settings.max_model_bytes,
        trust_pickle=settings.trust_pickle,
        trust_modules=settings.trust_modules,
    )
    pinned.check(loaded.manifest)
    return ProvenVersion(loaded, settings.threads)
