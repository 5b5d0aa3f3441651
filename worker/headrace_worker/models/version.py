"""One version from a model store, for a program without a queue: a test, for instance."""

from __future__ import annotations

import os

import msgspec

from headrace.settings import load_settings
from headrace_worker.models.loader import LoadedModel, load
from headrace_worker.settings import WorkerSettings
from headrace_worker.store.store import Store


def load_version(
    models: str | os.PathLike[str],
    name: str,
    version: str | None = None,
    *,
    settings: WorkerSettings | None = None,
) -> LoadedModel:
    """Load a version of a model, verify it and run its example, as a worker does. None is the newest version.

    `models` is the folder or URL of a model store. `settings` are those of the environment by default: they say
    which signatures and which code are trusted. Raises UnknownModel, and ModelError if it must not serve.
    """
    settings = settings or load_settings(WorkerSettings)
    settings = msgspec.structs.replace(settings, models=os.fspath(models))
    store = Store.from_settings(settings)
    return load(
        store,
        name,
        version or store.latest(name),
        max_bytes=settings.max_model_bytes,
        trust_pickle=settings.trust_pickle,
        trust_modules=settings.trust_modules,
    )
