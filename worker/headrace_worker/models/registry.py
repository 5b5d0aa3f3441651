"""The versions a process has in memory, which of them serve, and which are refused.

The worker's main process loads (`following`); its pool processes are forked from it with all that it has, and are
told with each claim where jobs go. They load by themselves only what a job names and no alias does.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence

import msgspec

from headrace.catalog.aliases import ARRIVING, CANARY, PRODUCTION, SHADOW, Alias, Aliases, is_version
from headrace.catalog.contract import Contract
from headrace.errors import HeadraceError, ModelError, StoreUnavailable, TransientError, UnknownModel
from headrace_worker.manifest import Limits
from headrace_worker.models.loader import LoadedModel, load
from headrace_worker.route import Route
from headrace_worker.settings import WorkerSettings
from headrace_worker.store.store import Store

log = logging.getLogger("headrace.models")


class NotLoadedYet(TransientError):
    """The worker has the version, or is loading it, and will soon have replaced this pool process."""


def _nowhere(_alias: str) -> str | None:
    return None


class Registry:
    """Loaded versions. Any thread may ask; one loads at a time. A version that is refused is tried once."""

    def __init__(self, store: Store, settings: WorkerSettings | None = None) -> None:
        self.store = store
        self._settings = settings or WorkerSettings()
        self._lock = threading.RLock()
        # Of these, inner mappings and sequences are replaced, never changed: other threads read them.
        self._loaded: dict[str, Mapping[str, LoadedModel]] = {}
        self._refused: dict[str, Mapping[str, str]] = {}
        self._routes: dict[str, Route] = {}
        #: The versions that other workers have of a model; set in a pool process. Raises redis.RedisError.
        self.other_workers: Callable[[str], Sequence[tuple[str, ...]]] = lambda _model: ()
        #: What the main process has said it has or will have, in a pool process.
        self._promised: dict[str, Route] = {}

    # --- what a job runs on ------------------------------------------------------------------------

    def get(self, model: str, version: str | None = None, job: str = "") -> LoadedModel:
        """The version that a job runs on which asks for a version, an alias or nothing.

        Raises UnknownModel where the store has none, ModelError where it must not serve, StoreUnavailable where
        it is not in memory and the store is away, NotLoadedYet in a pool process that is about to be replaced.
        """
        number = version if version is not None and is_version(version) else self._routed(model, version, job)
        if number is None:  # nobody has looked for the model yet
            number = self.serve(Aliases(model)).resolve(version, job) or ""
        if loaded := self._loaded.get(model, {}).get(number):
            return loaded
        if model in self._promised and number in self._promised[model].ready:
            raise NotLoadedYet(f"{model}@{number} is not in the memory of this process yet")
        return self._load(model, number)

    def is_runnable_elsewhere(self, model: str, version: str | None) -> bool:
        """Whether another worker has the version, or may know a model, version or alias that we do not."""
        others = self.other_workers(model)
        if version in self.refused(model):
            return any(version in versions for versions in others)
        return bool(others)

    def _routed(self, model: str, asked: str | None, job: str) -> str | None:
        """The number of the version an alias or nothing stands for; None where that is not known."""
        route = self._routes.get(model) or self._promised.get(model)
        return route.resolve(asked, job) if route is not None else None

    # --- the main process --------------------------------------------------------------------------

    def serve(self, aliases: Aliases, former: Callable[[str], str | None] = _nowhere) -> Route:
        """Load what the aliases of a model name, and let jobs go there from now on.

        Where a version cannot serve, its alias stands for what it stood for before, or for `former(alias)`; a
        canary or shadow for nothing. Without a production alias the newest version that loads serves. Raises
        UnknownModel, ModelError or StoreUnavailable where nothing serves.
        """
        model = aliases.model
        with self._lock:
            before = self._routes.get(model, Route(model=model))
            self._announce(before, aliases.versions)
            found: dict[str, Alias] = {}
            for name, alias in aliases.by_name.items():
                version = self._first(model, [alias.version])
                if version is None and name not in {ARRIVING, CANARY, SHADOW}:
                    known = [before.aliases[name].version] if name in before.aliases else []
                    version = self._first(model, known or [one for one in [former(name)] if one])
                if version is not None:
                    found[name] = msgspec.structs.replace(alias, version=version)
            newest = None if PRODUCTION in found else self._newest(model, before)
            route = Route(model=model, aliases=found, newest=newest, ready=self.loaded_versions(model))
            self._routes[model] = route
            return route

    def _announce(self, before: Route, versions: Iterable[str]) -> None:
        """Let pool processes leave to us what takes a while to load."""
        model = before.model
        coming = set(versions) - set(self._refused.get(model, ())) - set(before.ready)
        if coming and before.versions:
            self._routes[model] = msgspec.structs.replace(before, ready=(*before.ready, *coming))

    def _first(self, model: str, versions: Sequence[str]) -> str | None:
        for version in versions:
            try:
                return self._load(model, version).manifest.version
            except (HeadraceError, OSError):
                continue
        return None

    def _newest(self, model: str, before: Route) -> str:
        try:
            versions = self.store.versions(model) or [self.store.latest(model)]
        except (HeadraceError, OSError):
            # A store out of reach, or a model taken out of it, is no reason to stop serving what is in memory.
            if not (before.default and before.default in self.loaded_versions(model)):
                raise
            return before.default
        refused: HeadraceError | None = None
        for version in reversed(versions):
            try:
                return self._load(model, version).manifest.version
            except (ModelError, StoreUnavailable) as error:
                refused = refused or error
        raise refused or ModelError(f"no version of {model} can be loaded")

    def preload(self, names: Iterable[str] | None = None) -> dict[str, HeadraceError]:
        """Serve the newest version of each model, of all by default; returns what went wrong, by model."""
        failures: dict[str, HeadraceError] = {}
        for name in self.store.models() if names is None else names:
            try:
                self.serve(Aliases(name))
            except HeadraceError as error:
                failures[name] = error
        return failures

    def drop(self, model: str, version: str) -> None:
        """Forget a version that nothing names; a job that asks for it all the same has it loaded again."""
        with self._lock:
            kept = {number: one for number, one in self._loaded.get(model, {}).items() if number != version}
            self._loaded[model] = kept
            if route := self._routes.get(model):
                self._routes[model] = msgspec.structs.replace(route, ready=tuple(kept))

    # --- a pool process ----------------------------------------------------------------------------

    def after_fork(self) -> None:
        """Begin in a process just forked: another thread of the main one may have held the lock."""
        self._lock = threading.RLock()

    def apply_route(self, route: Route) -> None:
        """Go by what the main process says, as far as this process has the versions for it."""
        known = self._loaded.get(route.model, {})
        if route.versions <= known.keys():
            self._routes[route.model] = route
        self._promised[route.model] = route

    # --- what there is -----------------------------------------------------------------------------

    def route(self, model: str) -> Route | None:
        """Where jobs of a model go; None for one that is not served."""
        return self._routes.get(model)

    def models(self) -> list[str]:
        """The models that are served, sorted."""
        return sorted(self._routes)

    def loaded_versions(self, model: str) -> tuple[str, ...]:
        """The versions of a model in memory, oldest first."""
        return tuple(sorted(self._loaded.get(model, {}), key=int))

    def runtimes(self, model: str) -> Mapping[str, str]:
        """What executes each version of a model in memory."""
        return {version: one.manifest.runtime for version, one in self._loaded.get(model, {}).items()}

    def refused(self, model: str) -> Mapping[str, str]:
        """The versions of a model that must not serve, and why."""
        return self._refused.get(model, {})

    def contracts(self, model: str | None = None) -> list[Contract]:
        """The contracts of what serves, of all models by default."""
        routes = [self._routes[name] for name in ([model] if model else self.models())]
        return [
            self._loaded[route.model][version].contract
            for route in routes
            for version in sorted(route.versions, key=int)
            if version in self._loaded.get(route.model, {})
        ]

    def limits(self, model: str) -> Limits:
        """The limits of the version that serves; the usual ones for a model that is not loaded yet."""
        route = self._routes.get(model)
        serving = self._loaded.get(model, {}).get(route.default or "") if route else None
        return serving.manifest.limits if serving is not None else Limits()

    def _load(self, model: str, version: str) -> LoadedModel:
        with self._lock:
            if loaded := self._loaded.get(model, {}).get(version):
                return loaded
            if why := self.refused(model).get(version):
                raise ModelError(why)
            settings = self._settings
            try:
                loaded = load(
                    self.store,
                    model,
                    version,
                    max_bytes=settings.max_model_bytes,
                    trust_pickle=settings.trust_pickle,
                    trust_modules=settings.trust_modules,
                )
            except (UnknownModel, StoreUnavailable):
                raise
            except ModelError as error:
                self._refused[model] = {**self.refused(model), version: str(error)}
                log.error("%s", error)  # noqa: TRY400  # the message says all
                raise
            self._loaded[model] = {**self._loaded.get(model, {}), version: loaded}
            return loaded
