"""The commands `headrace models verify` and `headrace models gc`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click
import msgspec

from headrace.cli import options
from headrace.cli.command import command
from headrace.cli.commands import ERROR
from headrace.cli.completion import complete_models
from headrace.cli.tables import escape_unprintable, print_table
from headrace.errors import ModelError, UnknownModel
from headrace.text import format_bytes
from headrace_worker.cli.store_options import open_store, store_option, worker_settings

if TYPE_CHECKING:
    from headrace_worker.store.garbage import CollectionItem
    from headrace_worker.store.store import Store


class CheckedVersion(msgspec.Struct, frozen=True, kw_only=True):
    """The result of checking the files of a version."""

    model: str
    version: str
    ok: bool
    #: The reason why it is not; "" if it is.
    problem: str


@command(examples=["headrace models verify churn"])
@click.argument("model", metavar="[MODEL[@VERSION]]", shell_complete=complete_models, default="")
@click.option("--run", is_flag=True, help="Also load each version and predict its example.")
@store_option
@options.as_json
@click.pass_context
def verify(ctx: click.Context, /, *, model: str, run: bool, store: str | None, as_json: bool) -> None:
    """Check the files of versions: digest, manifest, and signature where the settings require one.

    Checks all models, all versions of MODEL, or one version. Exits with 1 if a version fails.
    """
    opened, failed = open_store(store), 0
    versions = _select_versions(opened, model)
    for name, version in versions:
        problem = _verify(opened, name, version, store, run=run)
        failed += bool(problem)
        if as_json:
            options.print_json(CheckedVersion(model=name, version=version, ok=not problem, problem=problem))
        else:
            options.print_line(f"{name}@{version}  {escape_unprintable(problem) or 'ok'}")
    if not versions:
        click.echo(f"no models in {opened.title}", err=True)
    if failed:
        click.echo(f"{failed} of {len(versions)} versions failed", err=True)
        ctx.exit(ERROR)


def _select_versions(store: Store, model: str) -> list[tuple[str, str]]:
    """Return pairs of model and version: one for MODEL@VERSION, else all of a model, or of all models for ""."""
    name, _, version = model.partition("@")
    if version:
        return [(name, version)]
    names = [name] if name else store.models()
    for model_name in names:
        store.latest(model_name)  # raises UnknownModel with similar names
    return [(model_name, number) for model_name in names for number in store.versions(model_name)]


def _verify(opened: Store, name: str, version: str, store: str | None, *, run: bool) -> str:
    """Return the problem of a version, "" where it has none; `run` also loads it and predicts its example."""
    settings = worker_settings(store)
    try:
        opened.verify(name, version, max_bytes=settings.max_model_bytes)
        if run:
            from headrace_worker.models.loader import load

            load(opened, name, version, max_bytes=settings.max_model_bytes, trust_pickle=settings.trust_pickle)
    except ModelError as error:
        return str(error)
    return ""


@command(examples=["headrace models gc --keep 5"])
@click.argument("models", metavar="[MODEL...]", shell_complete=complete_models, nargs=-1)
@click.option("--keep", type=click.IntRange(1), default=5, show_default=True, help="Newest versions to keep.")
@click.option("--dry-run", is_flag=True, help="List what would be removed, and remove nothing.")
@store_option
@options.url
@options.as_json
def gc(
    *,
    models: tuple[str, ...],
    keep: int,
    dry_run: bool,
    store: str | None,
    url: str | None,
    as_json: bool,
) -> None:
    """Remove old and unfinished versions of all models, or of each MODEL.

    Keeps every version that an alias, a job in progress or a dead letter in Redis names.
    """
    from headrace.client import Client
    from headrace_worker.store.garbage import GarbageCollector

    settings, opened = worker_settings(store, url), open_store(store)
    stored = opened.models()
    for model in models:
        if model not in stored:
            opened.latest(model)  # raises UnknownModel with similar names
            raise UnknownModel(f"no model {escape_unprintable(model)!r} in {opened.title}")
    with Client(settings=settings) as client:
        collector = GarbageCollector(
            opened, settings, lambda model: client.dead_letters.list(model=model), keep=keep
        )
        items = collector.find_candidates(models or stored, datetime.now(UTC))
        if not dry_run and any(item.remove for item in items):
            items = collector.collect(items)
    _print_items(items, dry_run=dry_run, as_json=as_json)


def _print_items(items: Sequence[CollectionItem], *, dry_run: bool, as_json: bool) -> None:
    verb = "would remove" if dry_run else "removed"
    if as_json:
        for item in items:
            options.print_json(item)
    elif items:
        rows = [
            (verb if item.remove else "kept", f"{item.model}@{item.version}", format_bytes(item.size), item.reason)
            for item in items
        ]
        print_table(rows, right={2}, texts={3})
    removed = [item for item in items if item.remove]
    summary = f"{verb} {len(removed)}, {format_bytes(sum(item.size for item in removed))}"
    click.echo(summary if removed else "nothing to remove", err=True)
