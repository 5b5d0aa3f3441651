"""The command group `headrace models`, with add and show."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from headrace.cli import options
from headrace.cli.command import group
from headrace.cli.completion import complete_models
from headrace.json_errors import describe_json_error
from headrace_worker.cli import (
    models_compare,
    models_diff,
    models_drift,
    models_list,
    models_maintenance,
    models_publish,
    models_rollout,
    models_sign,
)
from headrace_worker.cli.model_text import check_lines, manifest_lines
from headrace_worker.cli.runtime_trials import trial_lines
from headrace_worker.cli.store_options import open_store, store_option, worker_settings

if TYPE_CHECKING:
    from headrace_worker.manifest import Limits, Manifest

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


class _Model(click.Path):
    """A parameter type: a path that exists, or `module:factory`."""

    name = "model"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the value; fail for a path that does not exist, unless it is `module:factory`."""
        is_factory = ":" in str(value) and not Path(value).exists()
        return value if is_factory else super().convert(value, param, ctx)


class _Argument(click.ParamType[tuple[str, Any]]):
    """A parameter type: a name and a value of JSON."""

    name = "argument"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, Any]:
        """Return the name and the value; fail for another text."""
        name, equals, text = value.partition("=")
        try:
            return name, msgspec.json.decode(text)
        except (msgspec.DecodeError, RecursionError) as error:
            example = "return_std=true" if not equals else f"{name}=true, {name}=3 or '{name}=\"text\"'"
            described = f" ({describe_json_error(text, error)})" if equals else ""
            self.fail(f"{value[:64]!r} is not NAME=JSON{described}, such as {example}", param, ctx)


@group(examples=["headrace models add churn.skops --name churn --example customers.csv", "headrace models list"])
def models() -> None:
    """Add, list, check and roll out the models of a store."""


for _command in (
    *(models_rollout.promote, models_rollout.rollback, models_rollout.aliases_, models_rollout.history),
    *(models_maintenance.gc, models_maintenance.verify),
    *(models_diff.diff, models_compare.compare, models_drift.drift),
    models_list.list_,
    *(models_sign.keys, models_sign.sign, models_publish.publish),
):
    models.add_command(_command)


@models.command(
    examples=[
        "headrace models add churn.skops --name churn --example customers.csv",
        "headrace models add factories:churn --name churn --example customers.json --data churn.bin",
    ]
)
@click.argument("model", type=_Model(exists=True))
@click.option("--name", required=True, help="Name of the model; its queue is predict.NAME.")
@click.option(
    "--example",
    type=_FILE,
    help="Instances: .parquet, .csv, .json (a list) or .jsonl.  [the example of an MLflow folder]",
)
@click.option(
    "--expected",
    metavar="FILE|COLUMN",
    help="The model's own predictions for the example: a file, or a column of it.",
)
@click.option("--method", help="Default method, such as predict_proba.  [predict, if the model has it]")
@click.option(
    "--argument",
    "arguments",
    type=_Argument(),
    multiple=True,
    metavar="NAME=JSON",
    help="Constant argument of the default method, such as return_std=true; may be repeated.",
)
@click.option("--contract", type=_FILE, help="JSON file; its `input` replaces the inferred input.")
@click.option("--trust-pickle", is_flag=True, help="Allow joblib and pickle files, which run code when loaded.")
@click.option(
    "--runtime",
    default="auto",
    show_default=True,
    help="sklearn, treelite, onnx or another runtime; auto selects the fastest.",
)
@click.option("--data", type=_FILE, help="File that a module:factory loads.")
@click.option(
    "--code",
    type=click.Path(exists=True, path_type=Path),
    multiple=True,
    help="Module of your own that the model needs: a .py file or a package's folder; needs --trust-pickle.",
)
@click.option(
    "--profile",
    type=_FILE,
    help="At least 100 instances like the training data, to detect drift.  [the example]",
)
@click.option("--max-batch-instances", type=int, help="Maximum instances of a batch.  [1024]")
@click.option("--max-batch-bytes", type=int, help="Maximum bytes of the jobs of a batch.  [8388608]")
@click.option(
    "--max-batch-wait",
    type=float,
    metavar="SECONDS",
    help="How long the first job waits for a fuller batch.  [0]",
)
@click.option("--alone", is_flag=True, help="Predict each job in a call of its own, never with other jobs.")
@click.option(
    "--load-after-fork",
    is_flag=True,
    help="Load it in each pool process, not before the fork: it uses a GPU or starts threads.",
)
@click.option("--max-claims", type=int, help="Maximum pool processes of a worker that run it at once.  [all]")
@click.option("--max-attempts", type=int, help="Maximum runs of a job, when it crashes or can be retried.  [3]")
@click.option("--retry-delay", type=float, metavar="SECONDS", help="Maximum delay of the first retry.  [1]")
@click.option("--retry-delay-max", type=float, metavar="SECONDS", help="Maximum delay of any retry.  [60]")
@click.option(
    "--retry-on", multiple=True, metavar="EXCEPTION", help="Also retry on it: Busy, or feature_store.Busy."
)
@click.option(
    "--soft-time-limit", type=float, metavar="SECONDS", help="Interrupt the model after this time.  [never]"
)
@click.option(
    "--time-limit",
    type=float,
    metavar="SECONDS",
    help="Kill the pool process after this time.  [HEADRACE_TIME_LIMIT of the worker]",
)
@click.option("--sign-key", type=models_sign.key_file, metavar="FILE", help="Sign the version with this key.")
@store_option
@options.as_json
def add(
    *,
    model: str,
    name: str,
    example: Path | None,
    expected: str | None,
    method: str | None,
    arguments: tuple[tuple[str, Any], ...],
    contract: Path | None,
    trust_pickle: bool,
    runtime: str,
    data: Path | None,
    code: tuple[Path, ...],
    profile: Path | None,
    sign_key: Path | None,
    store: str | None,
    as_json: bool,
    **limits: float | tuple[str, ...] | None,
) -> None:
    """Add MODEL to the store as the next version of a model.

    MODEL is the file of an estimator (.skops, .joblib or .pkl), a file of LightGBM, XGBoost or CatBoost, an
    MLflow folder, an .onnx file, or module:factory.

    The contract is inferred from the model and the example, and printed for you to check. To correct it, edit
    what `headrace models show NAME --json` prints under `contract`, and add MODEL again with --contract.
    """
    from headrace_worker.threads import bound_threads, has_one_thread

    may_fork = has_one_thread()
    bound_threads(1)  # as in a worker, and before numpy is imported
    from headrace_worker.packaging.package import package
    from headrace_worker.packaging.prover import fork_prover
    from headrace_worker.store.signing import read_signer

    if may_fork:
        fork_prover()
    manifest = package(
        open_store(store, read_signer(sign_key) if sign_key else None),
        model,
        name=name,
        example=example,
        expected=Path(expected) if expected and Path(expected).is_file() else expected,
        method=method,
        arguments=dict(arguments),
        contract=contract,
        runtime=runtime,
        data=data,
        code=code,
        sample=profile,
        trust_pickle=trust_pickle,
        limits=_parse_limits(limits),
        max_bytes=worker_settings(store).max_model_bytes,
    )
    for line in trial_lines(manifest):
        click.echo(line, err=True)
    if as_json:
        options.print_json(manifest)
        return
    for line in manifest_lines(manifest):
        click.echo(line)
    _print_notes(manifest)


def _print_notes(manifest: Manifest) -> None:
    click.echo(f"added {manifest.title}; check that the input above is correct", err=True)
    for line in check_lines(manifest, None):
        click.echo(line, err=True)
    if manifest.format == "joblib":
        click.echo(
            "stored as joblib, because skops does not support it: a worker loads it only with "
            "HEADRACE_TRUST_PICKLE=true",
            err=True,
        )
    from headrace_worker.runtimes.pyfunc import FACTORY

    if manifest.code:
        click.echo(
            f"brings the modules {', '.join(manifest.code.modules)}: a worker loads it only with "
            "HEADRACE_TRUST_PICKLE=true",
            err=True,
        )
    elif manifest.factory == FACTORY:
        click.echo("loaded by MLflow: a worker loads it only with mlflow and HEADRACE_TRUST_PICKLE=true", err=True)
    elif manifest.factory:
        module = manifest.factory.partition(":")[0]
        click.echo(f"a worker runs code of {module} only with HEADRACE_TRUST_MODULES={module}", err=True)


def _parse_limits(values: dict[str, float | tuple[str, ...] | None]) -> Limits:
    """Return the limits from the values of their options; None and () are the defaults. Raises UsageError."""
    from headrace_worker.manifest import Limits

    try:
        return msgspec.convert(
            {name: value for name, value in values.items() if value not in {None, ()} and value is not False},
            Limits,
        )
    except msgspec.ValidationError as error:
        message, _, path = str(error).partition(" - at `$.")
        name = path.partition("[")[0].rstrip("`")
        if name == "retry_on":
            message = "expected the name of an exception class, such as Busy or feature_store.Busy"
        if name:
            raise click.BadParameter(
                message[0].lower() + message[1:], param_hint=f"--{name.replace('_', '-')}"
            ) from None
        raise click.UsageError(message) from None


@models.command(examples=["headrace models show churn@3"])
@click.argument("model", metavar="MODEL[@VERSION]", shell_complete=complete_models)
@store_option
@options.as_json
def show(model: str, store: str | None, as_json: bool) -> None:
    """Show the manifest of a version, by default the newest: its contract, artifact and limits."""
    opened = open_store(store)
    name, _, version = model.partition("@")
    manifest = opened.read_manifest(name, version or opened.latest(name))
    if as_json:
        options.print_json(manifest)
        return
    for line in manifest_lines(manifest):
        options.print_line(line)
