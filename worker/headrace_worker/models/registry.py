"""The versions in a process's memory, the versions that serve, and the versions that were refused.

The worker's main process loads versions (`sync`). Its pool processes are forked from it with all that it has
loaded, and each claim carries the route of its model. A pool process only loads a version itself if a job names
it and no alias does, or if the version must not be loaded before the fork.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

import msgspec

from headrace.catalog.aliases import ARRIVING, CANARY, PRODUCTION, SHADOW, Alias, Aliases, is_version
from headrace.catalog.contract import Contract
from headrace.errors import HeadraceError, ModelError, StoreUnavailable, TransientError, UnknownModel
from headrace_worker.manifest import Limits
from headrace_worker.models.loader import DeferredModel, LoadedModel, load
from headrace_worker.route import Route
from headrace_worker.settings import WorkerSettings
from headrace_worker.store.store import Store

log = logging.getLogger("headrace.models")


class NotLoadedYet(TransientError):
    """The worker's main process has the version or is loading it, and will soon replace this pool process."""


class RefusedHere(TransientError):
    """A version that must be loaded after the fork was refused in this pool process; another may have it."""


class TooManyVersions(TransientError):
    """The jobs of a claim name more versions than this process may have in memory for them."""


def _no_former_version(_alias: str) -> str | None:
    return None


class Registry:
    """The loaded versions. Any thread may call it; one version is loaded at a time.

    A version that was refused is not loaded again. With `prove`, a version is loaded in a child process first.
    With `defer`, a version that must not be loaded before a fork is loaded by `load_deferred`.
    """

    def __init__(
        self, store: Store, settings: WorkerSettings | None = None, *, prove: bool = False, defer: bool = False
    ) -> None:
        self.store = store
        self._prove, self._defer = prove, defer
        self._settings = settings or WorkerSettings()
        self._lock = threading.RLock()
        # The inner mappings are replaced and never changed, because other threads read them without the lock.
        self._loaded: dict[str, Mapping[str, LoadedModel]] = {}
        self._refused: dict[str, Mapping[str, str]] = {}
        self._routes: dict[str, Route] = {}
        #: Called before a version is loaded, with its model and its number.
        self.on_version: Callable[[str, str], None] = lambda _model, _version: None
        #: Returns the versions of a model that each other worker has. Set in a pool process. Raises
        #: redis.RedisError.
        self.other_workers: Callable[[str], Sequence[tuple[str, ...]]] = lambda _model: ()
        #: The versions that jobs named and no alias serves, by model and number, the least recently used first.
        self._named_by_jobs: dict[tuple[str, str], None] = {}
        #: In a pool process: the last route of each model that the main process has sent.
        self._announced: dict[str, Route] = {}

    # --- the version of a job ----------------------------------------------------------------------

    def get(self, model: str, version: str | None = None, job: str = "") -> LoadedModel:
        """Return the version that a job runs on, given the version or alias it names; None for none.

        Raises UnknownModel if the store does not have it, ModelError if it must not serve, StoreUnavailable if it
        is not in memory and the store does not answer. In a pool process, raises NotLoadedYet if the process will
        be replaced, and RefusedHere.
        """
        number = version if version is not None and is_version(version) else self._resolve(model, version, job)
        if number is None:  # the model has no route yet
            number = self.serve(Aliases(model)).resolve(version, job) or ""
        if loaded := self._loaded.get(model, {}).get(number):
            if (model, number) in self._named_by_jobs:
                self._named_by_jobs.pop((model, number), None)  # the most recently used is the last
                self._named_by_jobs[model, number] = None
            return loaded
        if model in self._announced and number in self._announced[model].ready:
            if reason := self.refused(model).get(number):
                raise RefusedHere(reason)
            raise NotLoadedYet(f"{model}@{number} is not in the memory of this process yet")
        return self._load_for_job(model, number)

    def check_versions(self, model: str, versions: Collection[str]) -> None:
        """Check the versions that the jobs of one claim name: all are in memory until the claim ends.

        Raises TooManyVersions.
        """
        limit = self._settings.versions_of_jobs
        if len(versions) > limit and len(set(versions) - self._routed_versions(model)) > limit:
            raise TooManyVersions(
                f"other jobs of the claim name {limit} versions of {model}, as many as HEADRACE_VERSIONS_OF_JOBS"
            )

    def _load_for_job(self, model: str, version: str) -> LoadedModel:
        """Load a version that a job names. The least recently used of such versions are dropped from memory."""
        with self._lock:
            loaded = self._load(model, version)
            self._named_by_jobs[model, version] = None
            for name, number in list(self._named_by_jobs):
                if len(self._named_by_jobs) <= self._settings.versions_of_jobs:
                    break
                if (name, number) == (model, version):
                    continue
                self._named_by_jobs.pop((name, number), None)
                if number not in self._routed_versions(name):
                    self.drop(name, number)
                    log.info("dropped %s@%s from memory: jobs named other versions since", name, number)
            return loaded

    def _routed_versions(self, model: str) -> set[str]:
        """Return the versions of a model that aliases or the newest version serve."""
        routes = (self._routes.get(model), self._announced.get(model))
        return {version for route in routes if route is not None for version in route.versions}

    def is_runnable_elsewhere(self, model: str, version: str | None) -> bool:
        """Decide whether another worker has the version, or may know a model or alias that this one does not."""
        if version in self.refused(model):
            return self.is_loaded_elsewhere(model, version)
        return bool(self.other_workers(model))

    def is_loaded_elsewhere(self, model: str, version: str | None) -> bool:
        """Decide whether another worker has the version with this number."""
        return any(version in versions for versions in self.other_workers(model))

    def version_of(self, model: str, requested: str | None, job: str) -> str | None:
        """Return the number of the version that a job runs on; None if none serves or there is no such alias.

        It loads nothing, so the version may still be refused.
        """
        if requested is not None and is_version(requested):
            return requested
        try:
            return self._resolve(model, requested, job)
        except UnknownModel:
            return None

    def _resolve(self, model: str, requested: str | None, job: str) -> str | None:
        """Return the number of the version for an alias or for None; None if the model has no route."""
        route = self._routes.get(model) or self._announced.get(model)
        return route.resolve(requested, job) if route is not None else None

    # --- in the main process -----------------------------------------------------------------------

    def serve(self, aliases: Aliases, former_version: Callable[[str], str | None] = _no_former_version) -> Route:
        """Load the versions that a model's aliases name, and route jobs to them from now on.

        If a version cannot serve, its alias keeps the version it had, or gets `former_version(alias)`; a canary or
        shadow is dropped. Without a production alias, the newest version that loads serves. Raises UnknownModel,
        ModelError or StoreUnavailable if no version serves.
        """
        model = aliases.model
        with self._lock:
            before = self._routes.get(model, Route(model=model))
            self._announce(before, aliases.versions)
            serving: dict[str, Alias] = {}
            for name, alias in aliases.by_name.items():
                version = self._try_load(model, alias.version)
                if version is None and name not in {ARRIVING, CANARY, SHADOW}:
                    former = before.aliases[name].version if name in before.aliases else former_version(name)
                    version = self._try_load(model, former)
                if version is not None:
                    serving[name] = msgspec.structs.replace(alias, version=version)
            newest = None if PRODUCTION in serving else self._load_newest(model, before)
            route = Route(model=model, aliases=serving, newest=newest, ready=self.loaded_versions(model))
            self._routes[model] = route
            return route

    def _announce(self, before: Route, versions: Iterable[str]) -> None:
        """Add versions that are about to load to the route, so that pool processes do not load them as well."""
        model = before.model
        loading = set(versions) - set(self._refused.get(model, ())) - set(before.ready)
        if loading and before.versions:
            self._routes[model] = msgspec.structs.replace(before, ready=(*before.ready, *loading))

    def _try_load(self, model: str, version: str | None) -> str | None:
        """Load a version, and return its number; None if there is none to load, or it cannot be loaded."""
        if not version:
            return None
        try:
            return self._load(model, version).manifest.version
        except (HeadraceError, OSError):
            return None

    def _load_newest(self, model: str, before: Route) -> str:
        try:
            versions = self.store.versions(model) or [self.store.latest(model)]
        except (HeadraceError, OSError):
            # The store does not answer, or no longer has the model. A version in memory continues to serve.
            if not (before.default and before.default in self.loaded_versions(model)):
                raise
            return before.default
        first_error: HeadraceError | None = None
        for version in reversed(versions):
            try:
                return self._load(model, version).manifest.version
            except (ModelError, StoreUnavailable) as error:
                first_error = first_error or error
        raise first_error or ModelError(f"no version of {model} can be loaded")

    def preload(self, names: Iterable[str] | None = None) -> dict[str, HeadraceError]:
        """Serve the newest version of each of these models, or of all, and return the errors by model."""
        failures: dict[str, HeadraceError] = {}
        for name in self.store.models() if names is None else names:
            try:
                self.serve(Aliases(name))
            except HeadraceError as error:
                failures[name] = error
        return failures

    def drop(self, model: str, version: str) -> None:
        """Remove a version from memory. If a job asks for it later, it is loaded again."""
        with self._lock:
            loaded_versions = self._loaded.get(model, {})
            remaining = {number: loaded for number, loaded in loaded_versions.items() if number != version}
            self._loaded[model] = remaining
            self._named_by_jobs.pop((model, version), None)
            if route := self._routes.get(model):
                self._routes[model] = msgspec.structs.replace(route, ready=tuple(remaining))

    # --- in a pool process -------------------------------------------------------------------------

    def after_fork(self) -> None:
        """Replace the lock in a forked process: another thread of the main process may have held it."""
        self._lock = threading.RLock()
        self._defer = False

    def apply_route(self, route: Route) -> None:
        """Use the route that the main process sent, if this process has all its versions in memory or refused."""
        missing = route.versions - self._loaded.get(route.model, {}).keys()
        if missing <= self.refused(route.model).keys():
            self._routes[route.model] = route
        self._announced[route.model] = route

    # --- where nothing is forked any more: in a pool process, and in the only one of other pools -------

    def deferred(self) -> list[DeferredModel]:
        """Return the versions in memory that are not loaded, as they must not be before a fork."""
        return [
            loaded
            for versions in self._loaded.values()
            for loaded in versions.values()
            if isinstance(loaded, DeferredModel)
        ]

    def load_deferred(self) -> dict[str, str]:
        """Load the versions that were not loaded before the fork, and later ones at once.

        Return the reasons by the title of the version for those that cannot be loaded: they are refused.
        """
        with self._lock:
            self._defer = False
            failures: dict[str, str] = {}
            # All are proven before the first is loaded: its threads do not exist in the child that proves another.
            for deferred in self.deferred() if self._prove else []:
                self._try(deferred, deferred.prove, failures)
            for deferred in self.deferred():
                if loaded := self._try(deferred, deferred.load, failures):
                    model, version = loaded.manifest.name, loaded.manifest.version
                    self._loaded[model] = {**self._loaded[model], version: loaded}
            return failures

    def refuse_deferred(self, reason: str) -> dict[str, str]:
        """Refuse the versions that were not loaded before the fork; return the reasons as `load_deferred` does."""

        def refuse() -> None:
            raise ModelError(reason)

        failures: dict[str, str] = {}
        with self._lock:
            for deferred in self.deferred():
                self._try(deferred, refuse, failures)
        return failures

    def _try(
        self, deferred: DeferredModel, step: Callable[[], LoadedModel | None], failures: dict[str, str]
    ) -> LoadedModel | None:
        """Do a step of loading a version. If it fails, refuse the version, and add the reason to `failures`."""
        manifest = deferred.manifest
        try:
            return step()
        except ModelError as error:
            reason = str(error)
        except (Exception, SystemExit) as error:  # noqa: BLE001  # a model may raise anything
            reason = f"{manifest.title} cannot be loaded: {type(error).__name__}: {error}"
        model, version = manifest.name, manifest.version
        failures[manifest.title] = reason
        self._refused[model] = {**self.refused(model), version: reason}
        remaining = {number: loaded for number, loaded in self._loaded[model].items() if number != version}
        self._loaded[model] = remaining
        log.error("%s", reason)
        return None

    # --- in any process ----------------------------------------------------------------------------

    def route(self, model: str) -> Route | None:
        """Return the route of a model's jobs; None if the model is not served."""
        return self._routes.get(model)

    def models(self) -> list[str]:
        """Return the models that are served, sorted."""
        return sorted(self._routes)

    def loaded_versions(self, model: str) -> tuple[str, ...]:
        """Return the versions of a model in memory, oldest first."""
        return tuple(sorted(self._loaded.get(model, {}), key=int))

    def runtimes(self, model: str) -> Mapping[str, str]:
        """Return the runtime of each version of a model in memory."""
        return {version: loaded.manifest.runtime for version, loaded in self._loaded.get(model, {}).items()}

    def refused(self, model: str) -> Mapping[str, str]:
        """Return the versions of a model that must not serve, and the reasons."""
        return self._refused.get(model, {})

    def contracts(self, model: str | None = None) -> list[Contract]:
        """Return the contracts of the versions that serve, of one model or of all."""
        routes = [self._routes[name] for name in ([model] if model else self.models())]
        return [
            self._loaded[route.model][version].contract
            for route in routes
            for version in sorted(route.versions, key=int)
            if version in self._loaded.get(route.model, {})
        ]

    def limits(self, model: str) -> Limits:
        """Return the limits of the version that serves; the default limits if the model is not loaded."""
        route = self._routes.get(model)
        serving = self._loaded.get(model, {}).get(route.default or "") if route else None
        return serving.manifest.limits if serving is not None else Limits()

    def _load(self, model: str, version: str) -> LoadedModel:
        with self._lock:
            if loaded := self._loaded.get(model, {}).get(version):
                return loaded
            if reason := self.refused(model).get(version):
                raise ModelError(reason)
            self.on_version(model, version)
            settings = self._settings
            try:
                loaded = load(
                    self.store,
                    model,
                    version,
                    max_bytes=settings.max_model_bytes,
                    trust_pickle=settings.trust_pickle,
                    trust_modules=settings.trust_modules,
                    prove=self._prove,
                    defer=self._defer,
                )
            except (UnknownModel, StoreUnavailable):
                raise
            except ModelError as error:
                self._refused[model] = {**self.refused(model), version: str(error)}
                log.error("%s", error)  # noqa: TRY400  # the message says all
                raise
            self._loaded[model] = {**self._loaded.get(model, {}), version: loaded}
            return loaded
