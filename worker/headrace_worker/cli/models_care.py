"""`headrace models verify` and `headrace models gc`: look after the store."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click
import msgspec

from headrace.cli import options
from headrace.cli.commands import ERROR
from headrace.errors import ModelError, UnknownModel
from headrace.text import format_bytes
from headrace_worker.cli import store as stores

if TYPE_CHECKING:
    from headrace_worker.store.garbage import CollectionItem
    from headrace_worker.store.store import Store


@click.command()
@click.argument("model", metavar="[MODEL[@VERSION]]", default="")
@click.option("--run", is_flag=True, help="Load each version too, and let it predict its example.")
@stores.option
@options.as_json
@click.pass_context
def verify(ctx: click.Context, /, *, model: str, run: bool, store: str | None, as_json: bool) -> None:
    """Read every file of versions, and check it: digest, manifest, and signature as the settings want it.

    Of all models, of one, or of one version of it. Ends with 1 if a version fails.
    """
    settings, opened, failed = stores.settings(store), stores.opened(store), 0
    chosen = _chosen(opened, model)
    for name, version in chosen:
        title = f"{name}@{version}"
        try:
            opened.verify(name, version, max_bytes=settings.max_model_bytes)
            if run:
                from headrace_worker.models.loader import load

                load(
                    opened,
                    name,
                    version,
                    max_bytes=settings.max_model_bytes,
                    trust_pickle=settings.trust_pickle,
                )
            problem = ""
        except ModelError as error:
            problem = str(error)
            failed += 1
        if as_json:
            options.print_json({"model": name, "version": version, "good": not problem, "problem": problem})
        else:
            options.print_line(f"{title}  {options.printable(problem) or 'good'}")
    if not chosen:
        click.echo(f"no models in {opened.title}", err=True)
    if failed:
        click.echo(f"{failed} of {len(chosen)} versions must not serve", err=True)
        ctx.exit(ERROR)


def _chosen(store: Store, model: str) -> list[tuple[str, str]]:
    name, _, version = model.partition("@")
    names = [name] if name else store.models()
    if version:
        return [(name, version)]
    for each in names:
        store.latest(each)  # says what there is instead
    return [(each, number) for each in names for number in store.versions(each)]


@click.command()
@click.argument("models", metavar="[MODEL...]", nargs=-1)
@click.option("--keep", type=click.IntRange(1), default=5, show_default=True, help="Newest versions to keep.")
@click.option("--dry-run", is_flag=True, help="Say what would be removed, and remove nothing.")
@stores.option
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
    """Remove old versions of all models, or of those named, and what was never finished.

    Never one that an alias, a job in flight or a dead letter names; Redis is asked for these.
    """
    from headrace.client import Client
    from headrace_worker.store.garbage import GarbageCollector

    settings, opened = stores.settings(store), stores.opened(store)
    if url:
        settings = msgspec.structs.replace(settings, redis_url=url)
    known = opened.models()
    for model in models:
        if model not in known:
            opened.latest(model)  # says what there is instead
            raise UnknownModel(f"no model {options.printable(model)!r} in {opened.title}")
    with Client(settings=settings) as client:
        collector = GarbageCollector(
            opened, settings, lambda model: client.dead_letters.list(model=model), keep=keep
        )
        found = collector.find_candidates(models or known, datetime.now(UTC))
        if not dry_run and any(one.remove for one in found):
            found = collector.collect(found)
    _tell(found, dry_run=dry_run, as_json=as_json)


def _tell(found: Sequence[CollectionItem], *, dry_run: bool, as_json: bool) -> None:
    verb = "would remove" if dry_run else "removed"
    for one in found if as_json else ():
        options.print_json(one)
    if found and not as_json:
        rows = [
            (verb if one.remove else "kept", f"{one.model}@{one.version}", format_bytes(one.size), one.reason)
            for one in found
        ]
        for line in options.table(rows, right={2}):
            options.print_line(line)
    gone = [one for one in found if one.remove]
    what = f"{verb} {len(gone)}, {format_bytes(sum(one.size for one in gone))}"
    click.echo(what if gone else "nothing to remove", err=True)
