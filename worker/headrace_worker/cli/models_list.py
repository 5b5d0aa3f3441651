"""The command `headrace models list`."""

from __future__ import annotations

from datetime import datetime

import click
import msgspec

from headrace.cli import options
from headrace.cli.command import command
from headrace.cli.tables import print_table
from headrace.clock import utc_now
from headrace.errors import ModelError
from headrace.text import format_age, format_bytes
from headrace_worker.cli.store_options import open_store, store_option
from headrace_worker.manifest import Format, Manifest


class ListedModel(msgspec.Struct, frozen=True, kw_only=True):
    """The newest version of a model in the store."""

    model: str
    version: str
    #: The methods that a job may ask for, the default one first.
    methods: tuple[str, ...]
    format: Format
    runtime: str
    #: The size of the artifact, in bytes.
    size: int
    created: datetime
    #: The estimator's classes, for people.
    estimator: str


@command("list", examples=["headrace models list"])
@store_option
@options.as_json
def list_(store: str | None, as_json: bool) -> None:
    """List the models of the store with their newest version."""
    opened = open_store(store)
    newest, errors = [], []
    for name in opened.models():
        try:
            newest.append(opened.read_manifest(name, opened.latest(name)))
        except ModelError as error:
            errors.append(str(error))
    if as_json:
        for manifest in newest:
            options.print_json(_summarise(manifest))
    elif newest:
        rows = [
            (
                manifest.name,
                manifest.version,
                manifest.contract.method,
                format_bytes(manifest.size),
                format_age((utc_now() - manifest.created).total_seconds()),
                manifest.estimator,
            )
            for manifest in newest
        ]
        titles = ("MODEL", "NEWEST", "METHOD", "SIZE", "AGE", "ESTIMATOR")
        print_table([titles, *rows], drops={2: 3, 3: 2, 4: 1}, texts={5})
    elif not errors:
        click.echo(f"no models in {opened.title}; add one with `headrace models add`", err=True)
    if errors:
        raise ModelError("; ".join(errors))


def _summarise(manifest: Manifest) -> ListedModel:
    return ListedModel(
        model=manifest.name,
        version=manifest.version,
        methods=manifest.methods,
        format=manifest.format,
        runtime=manifest.runtime,
        size=manifest.size,
        created=manifest.created,
        estimator=manifest.estimator,
    )
