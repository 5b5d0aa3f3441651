"""The option --store, and the store and settings it leads to."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
import msgspec

from headrace.settings import load_settings
from headrace_worker.settings import WorkerSettings

if TYPE_CHECKING:
    from headrace_worker.store.signing import Signer
    from headrace_worker.store.store import Store

store_option = click.option(
    "--store", metavar="STORE", help="The model store, a folder or URL.  [HEADRACE_MODELS, else ./models]"
)


def worker_settings(store: str | None, url: str | None = None) -> WorkerSettings:
    """Return the worker settings of the environment, with the values of --store and --url where they are not None.

    Raises SettingError.
    """
    overrides = {name: value for name, value in (("models", store), ("redis_url", url)) if value}
    return msgspec.structs.replace(load_settings(WorkerSettings), **overrides)


def open_store(store: str | None, signer: Signer | None = None) -> Store:
    """Return the store of --store, with the signature keys of the settings; `signer` signs added versions."""
    from headrace_worker.store.store import Store

    return Store.from_settings(worker_settings(store), signer=signer)
