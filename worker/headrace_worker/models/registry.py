"""The versions a worker has loaded, and which of them serves."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable

from headrace.contract import Contract
from headrace.errors import HeadraceError, ModelError, StoreUnavailable
from headrace_worker.models.loader import LoadedModel, load
from headrace_worker.models.manifest import Limits
from headrace_worker.models.store import Store
from headrace_worker.settings import WorkerSettings

log = logging.getLogger("headrace.models")

#: Seconds between two looks at a model's folder.
LOOK_EVERY = 1.0


class Registry:
    """Loads versions when they are first asked for. For many threads, one of which loads.

    A version that cannot be loaded is tried once; the newest one that can serves. `clock` gives seconds.
    """

    def __init__(
        self,
        store: Store,
        settings: WorkerSettings | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.store = store
        self._settings = settings or WorkerSettings()
        self._clock = clock
        self._lock = threading.RLock()
        self._loaded: dict[tuple[str, str], LoadedModel] = {}
        self._refused: dict[tuple[str, str], str] = {}
        self._serving: dict[str, LoadedModel] = {}
        self._looked: dict[str, float] = {}

    def preload(self, names: Iterable[str] | None = None) -> dict[str, HeadraceError]:
        """Load the newest version of each model; returns what went wrong, by model."""
        failures: dict[str, HeadraceError] = {}
        for name in self.store.models() if names is None else names:
            try:
                self.get(name)
            except HeadraceError as error:
                failures[name] = error
        return failures

    def get(self, model: str, version: str | None = None) -> LoadedModel:
        """A version, or the newest one that loads.

        Raises UnknownModel where the store has none, ModelError where it cannot be loaded.
        """
        if version is not None:
            return self._loaded.get((model, version)) or self._load(model, version)
        serving = self._serving.get(model)
        if serving is not None and self._clock() - self._looked[model] < LOOK_EVERY:
            return serving
        return self._look(model)

    def is_refused(self, model: str, version: str) -> bool:
        """Whether a version was found not fit to serve; one whose store is away is not known to be."""
        return (model, version) in self._refused

    def contracts(self) -> list[Contract]:
        """The contract of the version that serves, for each model that has one."""
        return [self._serving[model].contract for model in sorted(self._serving)]

    def limits(self, model: str) -> Limits:
        """The limits of the version that serves; the usual ones for a model that is not loaded yet."""
        serving = self._serving.get(model)
        return serving.manifest.limits if serving is not None else Limits()

    def _look(self, model: str) -> LoadedModel:
        with self._lock:
            serving = self._serving.get(model)
            try:
                versions = self.store.versions(model) or [self.store.latest(model)]
            except HeadraceError:
                # A store out of reach for a moment is no reason to stop serving what is in memory.
                if serving is None:
                    raise
                versions = [serving.manifest.version]
            refused: HeadraceError | None = None
            for version in reversed(versions):
                try:
                    found = self._load(model, version)
                    break
                except (ModelError, StoreUnavailable) as error:
                    refused = refused or error
            else:
                raise refused or ModelError(f"no version of {model} can be loaded")
            self._serving[model] = found
            self._looked[model] = self._clock()
            return found

    def _load(self, model: str, version: str) -> LoadedModel:
        key = (model, version)
        with self._lock:
            if key in self._loaded:
                return self._loaded[key]
            if key in self._refused:
                raise ModelError(self._refused[key])
            try:
                loaded = load(
                    self.store,
                    model,
                    version,
                    max_bytes=self._settings.max_model_bytes,
                    trust_pickle=self._settings.trust_pickle,
                )
            except ModelError as error:
                self._refused[key] = str(error)
                log.error("%s", error)  # noqa: TRY400  # the message says all
                raise
            self._loaded[key] = loaded
            return loaded
