"""The commands `headrace models keys` and `headrace models sign`."""

from __future__ import annotations

from pathlib import Path

import click

from headrace.cli import options
from headrace.cli.command import command, group
from headrace.cli.completion import complete_models
from headrace.cli.tables import escape_unprintable
from headrace_worker.cli.store_options import store_option, worker_settings

key_file = click.Path(dir_okay=False, path_type=Path)


@group(examples=["headrace models keys new release"])
def keys() -> None:
    """Create keys that sign versions."""


@keys.command("new", examples=["headrace models keys new release"])
@click.argument("name", type=key_file)
@click.option(
    "--hmac", "secret", is_flag=True, help="Create one secret key for signing and verifying; needs no package."
)
def new(name: Path, *, secret: bool) -> None:
    """Create a key: NAME.key signs, and NAME.pub is for workers."""
    from headrace_worker.store.signing import create_keys

    key_id, files = create_keys(name, secret=secret)
    use = "signs and verifies; keep it secret, workers need it too" if secret else "signs; keep it secret"
    for file, text in zip(files, (use, "verifies; for workers"), strict=False):
        options.print_line(f"{file}  {text}")
    click.echo(
        f"key {key_id}; on workers: HEADRACE_MODEL_KEYS={files[-1]} HEADRACE_REQUIRE_SIGNATURE=true", err=True
    )


@command(examples=["headrace models sign churn@3 --key release.key"])
@click.argument("models", metavar="MODEL@VERSION...", shell_complete=complete_models, nargs=-1, required=True)
@click.option("--key", required=True, type=key_file, help="The key: NAME.key of `headrace models keys new`.")
@store_option
def sign(*, models: tuple[str, ...], key: Path, store: str | None) -> None:
    """Sign versions in the store, after checking their files against their manifests."""
    from headrace_worker.store.signing import read_signer
    from headrace_worker.store.store import Store

    signer, settings = read_signer(key), worker_settings(store)
    opened = Store(settings.models)  # without the settings' keys, so that unsigned versions can be read
    for model in models:
        name, _, version = model.partition("@")
        if not version:
            raise click.UsageError(f"name the version: {escape_unprintable(name)}@N")
        signed = opened.sign(name, version, signer, max_bytes=settings.max_model_bytes)
        options.print_line(f"{signed.title}  signed by {signer.id}, sha256 {signed.sha256}")
