"""`headrace models keys` and `headrace models sign`."""

from __future__ import annotations

from pathlib import Path

import click

from headrace.cli import options
from headrace_worker.cli import store as stores

key_file = click.Path(dir_okay=False, path_type=Path)


@click.group()
def keys() -> None:
    """Make keys that sign versions."""


@keys.command("new")
@click.argument("name", type=key_file)
@click.option("--hmac", "secret", is_flag=True, help="Make a secret that workers hold too; it needs no package.")
def new(name: Path, *, secret: bool) -> None:
    """Make a key: NAME.key, which signs, and NAME.pub, which is all that workers need."""
    from headrace_worker.store.signing import create_keys

    made, files = create_keys(name, secret=secret)
    private = "keep it secret; it signs, and workers need it too" if secret else "keep it secret; it signs"
    for file, what in zip(files, (private, "for workers"), strict=False):
        options.print_line(f"{file}  {what}")
    click.echo(
        f"key {made}; on workers: HEADRACE_MODEL_KEYS={files[-1]} HEADRACE_REQUIRE_SIGNATURE=true", err=True
    )


@click.command()
@click.argument("models", metavar="MODEL@VERSION...", nargs=-1, required=True)
@click.option("--key", required=True, type=key_file, help="The key: NAME.key of `headrace models keys new`.")
@stores.option
def sign(*, models: tuple[str, ...], key: Path, store: str | None) -> None:
    """Sign versions that are in the store, once their files are found to be those of their manifests."""
    from headrace_worker.store.signing import read_signer
    from headrace_worker.store.store import Store

    signer, settings = read_signer(key), stores.settings(store)
    opened = Store(settings.models)  # what is not signed yet can be read here
    for model in models:
        name, _, version = model.partition("@")
        if not version:
            raise click.UsageError(f"say which version: {options.printable(name)}@N")
        signed = opened.sign(name, version, signer, max_bytes=settings.max_model_bytes)
        options.print_line(f"{signed.title}  signed by {signer.id}, sha256 {signed.sha256}")
