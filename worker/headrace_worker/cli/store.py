"""What the commands of `headrace models` have in common: the store they were pointed at, and how they print."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
import msgspec

from headrace.settings import load_settings
from headrace_worker.settings import WorkerSettings

if TYPE_CHECKING:
    from headrace_worker.store.signing import Signer
    from headrace_worker.store.store import Store

option = click.option(
    "--store", metavar="STORE", help="The model store, a folder or URL.  [HEADRACE_MODELS, else ./models]"
)


def settings(store: str | None) -> WorkerSettings:
    """The settings of this shell, with the store the command was given."""
    found = load_settings(WorkerSettings)
    return msgspec.structs.replace(found, models=store) if store else found


def opened(store: str | None, signer: Signer | None = None) -> Store:
    """The store, with the keys of the settings."""
    from headrace_worker.store.store import Store

    return Store.from_settings(settings(store), signer=signer)
