"""The command `headrace models diff`."""

from __future__ import annotations

import click
import msgspec

from headrace.catalog.contract_diff import Change
from headrace.cli import options
from headrace.cli.command import command
from headrace.cli.completion import complete_versions
from headrace_worker.cli.store_options import open_store, store_option


class VersionChanges(msgspec.Struct, frozen=True, kw_only=True, rename={"old": "from", "new": "to"}):
    """The changes for producers from one version to another."""

    model: str
    old: str
    new: str
    #: True if one of the changes breaks producers.
    breaking: bool
    changes: tuple[Change, ...]


@command(examples=["headrace models diff churn 3 4"])
@options.model
@click.argument("old", metavar="VERSION", shell_complete=complete_versions)
@click.argument("new", metavar="VERSION", shell_complete=complete_versions)
@store_option
@options.as_json
def diff(*, model: str, old: str, new: str, store: str | None, as_json: bool) -> None:
    """List what changes for producers from one VERSION of a model to another, and whether it breaks them."""
    from headrace.catalog.contract_diff import compare_contracts, has_breaking

    opened = open_store(store)
    changes = compare_contracts(
        opened.read_manifest(model, old).contract, opened.read_manifest(model, new).contract
    )
    breaking = sum(change.breaking for change in changes)
    if as_json:
        options.print_json(
            VersionChanges(model=model, old=old, new=new, breaking=has_breaking(changes), changes=changes)
        )
        return
    for change in changes:
        options.print_line(f"{'breaking' if change.breaking else '':8}  {change.text}")
    if not changes:
        click.echo(f"nothing changes for producers from {model}@{old} to {model}@{new}", err=True)
    elif breaking:
        count = f"{breaking} of {len(changes)} change{'' if len(changes) == 1 else 's'}"
        click.echo(f"{model}@{new} breaks producers of {model}@{old}: {count}", err=True)
    else:
        click.echo(f"{model}@{new} breaks no producer of {model}@{old}", err=True)
