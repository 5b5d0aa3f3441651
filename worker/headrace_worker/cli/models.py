"""`headrace models`: add models to the store, and look at what is there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from headrace.catalog.contract import Array, Contract, Feature, Named, Output, Text
from headrace.errors import ModelError
from headrace.text import format_bytes
from headrace_worker.cli import (
    models_care,
    models_compare,
    models_diff,
    models_drift,
    models_rollout,
    models_sign,
    models_trials,
)
from headrace_worker.cli import store as stores

if TYPE_CHECKING:
    from headrace_worker.manifest import Limits, Manifest

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


class _Model(click.Path):
    """A path, or `module:factory`, which need not exist."""

    name = "model"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """What was given; a usage error for a path where nothing is."""
        return value if ":" in str(value) and not Path(value).exists() else super().convert(value, param, ctx)


_as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON, one object a line.")


@click.group()
def models() -> None:
    """Add, list and show the models of the store, and look after it."""


for _command in (
    *(models_rollout.promote, models_rollout.rollback, models_rollout.aliases_, models_rollout.history),
    *(models_care.gc, models_care.verify, models_diff.diff, models_compare.compare, models_drift.drift),
    *(models_sign.keys, models_sign.sign),
):
    models.add_command(_command)


@models.command()
@click.argument("model", type=_Model(exists=True))
@click.option("--name", required=True, help="The model's name: jobs wait in the queue predict.NAME.")
@click.option("--example", type=_FILE, help="Instances: .csv, .json (a list) or .jsonl.  [an MLflow folder's own]")
@click.option("--method", help="The default method, as predict_proba.  [predict, where there is one]")
@click.option("--contract", type=_FILE, help="JSON whose `input` is taken instead of the inferred one.")
@click.option("--trust-pickle", is_flag=True, help="Read joblib and pickle: that runs whatever code is in MODEL.")
@click.option(
    "--runtime",
    default="auto",
    show_default=True,
    help="sklearn, treelite, onnx, another's, or the quickest of them.",
)
@click.option("--data", type=_FILE, help="What a module:factory loads.")
@click.option(
    "--profile", type=_FILE, help="Instances as in training, to tell drift by: 100 or more.  [the example]"
)
@click.option("--max-batch-instances", type=int, help="Instances in a batch, at the most.  [1024]")
@click.option("--max-batch-bytes", type=int, help="Bytes of a batch's jobs, at the most.  [8388608]")
@click.option(
    "--max-batch-wait",
    type=float,
    metavar="SECONDS",
    help="How long the first job may wait for others, where a fuller batch is worth it.  [0]",
)
@click.option("--max-claims", type=int, help="Pool processes of a worker that run it at once, at the most.  [all]")
@click.option("--max-attempts", type=int, help="How often a job is run that crashes or may yet succeed.  [3]")
@click.option("--retry-delay", type=float, metavar="SECONDS", help="Until the first retry, at the most.  [1]")
@click.option("--retry-delay-max", type=float, metavar="SECONDS", help="Until any retry, at the most.  [60]")
@click.option("--retry-on", multiple=True, metavar="EXCEPTION", help="Retry on it too: Busy, feature_store.Busy.")
@click.option("--soft-time-limit", type=float, metavar="SECONDS", help="When to interrupt the model.  [never]")
@click.option(
    "--time-limit", type=float, metavar="SECONDS", help="When to kill its process.  [the worker's: 3600]"
)
@click.option("--sign-key", type=models_sign.key_file, metavar="FILE", help="Sign the version with this key.")
@stores.option
@_as_json
def add(
    *,
    model: str,
    name: str,
    example: Path | None,
    method: str | None,
    contract: Path | None,
    trust_pickle: bool,
    runtime: str,
    data: Path | None,
    profile: Path | None,
    sign_key: Path | None,
    store: str | None,
    as_json: bool,
    **limits: float | tuple[str, ...] | None,
) -> None:
    """Add MODEL to the store as the next version of a model.

    MODEL is the file of an estimator (.skops, .joblib or .pkl), an MLflow folder, an .onnx file, or
    module:factory.

    The contract is inferred from it and the example, and printed: look at it. To correct it, edit what
    `headrace models show NAME --json` prints under `contract` and add MODEL again with --contract.
    """
    from headrace_worker.packaging.package import package
    from headrace_worker.store.signing import read_signer

    settings = stores.settings(store)
    manifest = package(
        stores.opened(store, read_signer(sign_key) if sign_key else None),
        model,
        name=name,
        example=example,
        method=method,
        contract=contract,
        runtime=runtime,
        data=data,
        sample=profile,
        trust_pickle=trust_pickle,
        limits=_limits(limits),
        max_bytes=settings.max_model_bytes,
    )
    for line in models_trials.table(manifest):
        click.echo(line, err=True)
    if as_json:
        _print_json(manifest)
        return
    _print(_described(manifest))
    click.echo(f"added {manifest.title}; is the input above what the model takes?", err=True)
    if manifest.profile is None:
        click.echo("no profile to tell drift by: that takes 100 instances or more, as --profile FILE", err=True)
    if manifest.format == "joblib":
        click.echo(
            "stored as joblib, since skops cannot hold it: a worker loads it with HEADRACE_TRUST_PICKLE=true only",
            err=True,
        )
    if manifest.factory:
        module = manifest.factory.partition(":")[0]
        click.echo(f"a worker runs code of {module} with HEADRACE_TRUST_MODULES={module} only", err=True)


def _limits(given: dict[str, float | tuple[str, ...] | None]) -> Limits:
    """The limits given as options; those that were not are the usual ones. Raises click.UsageError."""
    from headrace_worker.manifest import Limits

    try:
        return msgspec.convert({name: value for name, value in given.items() if value not in {None, ()}}, Limits)
    except msgspec.ValidationError as error:
        said, _, path = str(error).partition(" - at `$.")
        name = path.partition("[")[0].rstrip("`")
        if name == "retry_on":
            said = "expected the name of an exception class, as Busy or feature_store.Busy"
        if name:
            raise click.BadParameter(
                said[0].lower() + said[1:], param_hint=f"--{name.replace('_', '-')}"
            ) from None
        raise click.UsageError(said) from None


@models.command("list")
@stores.option
@_as_json
def list_(store: str | None, as_json: bool) -> None:
    """List the models of the store, with their newest version."""
    opened = stores.opened(store)
    newest, wrong = [], []
    for name in opened.models():
        try:
            newest.append(opened.read_manifest(name, opened.latest(name)))
        except ModelError as error:
            wrong.append(str(error))
    if as_json:
        for manifest in newest:
            _print_json(_summary(manifest))
    rows = [
        (
            manifest.name,
            manifest.version,
            manifest.contract.method,
            format_bytes(manifest.size),
            f"{manifest.created:%Y-%m-%d %H:%M}",
            manifest.estimator,
        )
        for manifest in newest
    ]
    if rows and not as_json:
        _print(_table([("MODEL", "NEWEST", "METHOD", "SIZE", "ADDED (UTC)", "ESTIMATOR"), *rows]))
    if not (newest or wrong or as_json):
        click.echo(f"no models in {opened.title}; `headrace models add` adds one", err=True)
    if wrong:
        raise ModelError("; ".join(wrong))


@models.command()
@click.argument("model", metavar="MODEL[@VERSION]")
@stores.option
@_as_json
def show(model: str, store: str | None, as_json: bool) -> None:
    """Show a version of a model, the newest where none is named: its contract, and what it was made with."""
    opened = stores.opened(store)
    name, _, version = model.partition("@")
    manifest = opened.read_manifest(name, version or opened.latest(name))
    if as_json:
        _print_json(manifest)
    else:
        _print(_described(manifest))


def _summary(manifest: Manifest) -> dict[str, object]:
    return {
        "model": manifest.name,
        "version": manifest.version,
        "methods": manifest.methods,
        "format": manifest.format,
        "runtime": manifest.runtime,
        "size": manifest.size,
        "created": manifest.created,
        "estimator": manifest.estimator,
    }


def _described(manifest: Manifest) -> Iterator[str]:
    made = ", ".join(f"{name} {version}" for name, version in manifest.libraries.items())
    yield f"{manifest.title}  {manifest.estimator}"
    yield f"  added     {manifest.created:%Y-%m-%d %H:%M} UTC, with {made}"
    yield f"  artifact  {manifest.format}, {format_bytes(manifest.size)}, sha256 {manifest.sha256}"
    yield f"  runtime   {manifest.runtime}{f', {manifest.factory}' if manifest.factory else ''}"
    limits = manifest.limits
    yield f"  batches   up to {limits.max_batch_instances:,} rows, {format_bytes(limits.max_batch_bytes)}"
    yield f"  runs      {_runs(manifest.limits)}"
    yield f"  example   {len(manifest.example.instances)} instances"
    if manifest.profile:
        features, rows = len(manifest.profile.features), sum(manifest.profile.columns[0].rows)
        yield f"  profile   of {rows:,} instances, {features} features"
    yield ""
    yield from _contract(manifest.contract)


def _runs(limits: Limits) -> str:
    soft = f", interrupted after {limits.soft_time_limit:g} s" if limits.soft_time_limit else ""
    hard = f", killed after {limits.time_limit:g} s" if limits.time_limit else ""
    also = f", retried on {', '.join(limits.retry_on)} too" if limits.retry_on else ""
    return f"up to {limits.max_attempts} attempts{soft}{hard}{also}"


def _contract(contract: Contract) -> Iterator[str]:
    match contract.input:
        case Named(features=features):
            yield f"input: objects of {len(features)} named features"
            rows = [
                (feature.name, feature.kind, _missing(feature.nullable), _known(feature)) for feature in features
            ]
            yield from _table([("FEATURE", "KIND", "MISSING", "CATEGORIES"), *rows], "  ")
        case Array(shape=shape, kind=kind, nullable=nullable):
            size = " x ".join(map(str, shape)) or "single"
            yield f"input: lists of {size} values, kind {kind}, missing values {_missing(nullable)}"
        case Text():
            yield "input: texts"
    yield ""
    yield "output, the default method first"
    outputs = [(name, _shape(output), _classes(output)) for name, output in contract.methods.items()]
    yield from _table([("METHOD", "GIVES", "CLASSES"), *outputs], "  ")


def _missing(nullable: bool) -> str:
    return "allowed" if nullable else "no"


def _known(feature: Feature) -> str:
    if feature.categories is None:
        return "any" if feature.kind == "category" else ""
    return _shortened([str(category) for category in feature.categories])


def _shape(output: Output) -> str:
    return f"a list of {' x '.join(map(str, output.shape))}" if output.shape else "a value"


def _classes(output: Output) -> str:
    return _shortened([str(name) for name in output.classes or ()])


def _shortened(values: Sequence[str]) -> str:
    return ", ".join(values[:12]) + (f" and {len(values) - 12} more" if len(values) > 12 else "")


def _table(rows: Sequence[Sequence[str]], indent: str = "") -> Iterator[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        yield indent + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def _print(lines: Iterator[str]) -> None:
    for line in lines:
        click.echo(line)


def _print_json(value: object) -> None:
    click.echo(msgspec.json.encode(value).decode())
