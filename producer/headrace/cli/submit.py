"""`headrace submit`: put one job on the queue of a model."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click
import msgspec

from headrace.catalog.contract import Array, Contract, Tokens
from headrace.cli import options
from headrace.cli.command import command
from headrace.cli.completion import complete_files
from headrace.cli.json_objects import JobPrediction, SubmittedJob
from headrace.errors import InvalidInput
from headrace.json_errors import describe_json_error
from headrace.wire.queues import ONLINE_PRIORITY


@command(
    examples=[
        'headrace submit churn \'{"age": 41, "plan": "gold"}\' --wait',
        "headrace submit churn customers.json --id nightly-17 --meta by=billing",
    ]
)
@options.model
@click.argument("instances", default="-", shell_complete=complete_files)
@options.version
@options.method
@options.priority(ONLINE_PRIORITY)
@click.option("--expires", type=options.SECONDS, help="Seconds after which the job is no longer started.")
@click.option("--delay", type=options.SECONDS, help="Seconds before which the job is not started.")
@click.option("--id", "job_id", metavar="ID", help="The job's id; the same id with the same input is one job.")
@click.option("--meta", metavar="KEY=VALUE", multiple=True, help="Your own metadata of the job; may be repeated.")
@options.durable
@click.option("--wait", is_flag=True, help="Wait for the outcome and print the prediction.")
@click.option("--timeout", type=options.SECONDS, help="Wait for the outcome, at most this number of seconds.")
@options.as_json
@options.url
def submit(
    model: str,
    instances: str,
    *,
    version: str | None,
    job_id: str | None,
    meta: tuple[str, ...],
    wait: bool,
    timeout: float | None,
    as_json: bool,
    url: str | None,
    **job_options: Any,
) -> None:
    """Put one job on the queue of MODEL and print its id.

    INSTANCES is JSON, a file that contains JSON, or - for standard input: one instance or a list of instances.
    """
    value = read_instances(instances)
    with options.open_client(url) as client:
        job = client.submit(
            model,
            instances=to_instances(client.contract(model, version), value),
            version=version,
            id=job_id,
            metadata=_parse_metadata(meta),
            **job_options,
        )
        if not (wait or timeout):
            if as_json:
                options.print_json(SubmittedJob(id=job.id, model=job.model or model))
            else:
                options.print_line(job.id)
            return
        prediction = job.result(timeout)
    if as_json:
        options.print_json(JobPrediction.from_prediction(job.id, prediction))
    else:
        options.print_predictions(prediction)


def read_instances(argument: str) -> Any:
    """Read a JSON value from an argument, from the file it names, or from standard input (`-`).

    Raises InvalidInput.
    """
    if argument == "-":
        if sys.stdin is None or sys.stdin.isatty():
            raise click.UsageError("INSTANCES is missing: JSON, a file, or - for standard input")
        return _decode_json(sys.stdin.buffer.read(), "standard input")
    try:
        return msgspec.json.decode(argument)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        if argument.lstrip().startswith(("{", "[", '"')):
            described = describe_json_error(argument, error)
            raise InvalidInput(f"the argument INSTANCES is no valid JSON: {described}") from None
    try:
        return _decode_json(Path(argument).read_bytes(), argument)
    except (OSError, ValueError) as error:
        if isinstance(error, InvalidInput):
            raise
        raise InvalidInput("INSTANCES is neither JSON nor a file that can be read") from None


def _decode_json(text: bytes, name: str) -> Any:
    text = text.removeprefix(b"\xef\xbb\xbf")
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        described = describe_json_error(text, error)
        raise InvalidInput(
            f"{name} holds no valid JSON: {described}; files of many rows are for `headrace batch`"
        ) from None


def to_instances(contract: Contract, value: Any) -> list[Any]:
    """Return the instances in a JSON value, which is one instance or a list of instances.

    For a model that takes lists, a list as deep as the contract's shape is one instance, as is a list of strings
    for a model that takes tokens.
    """
    if not isinstance(value, list):
        return [value]
    if isinstance(contract.input, Array) and _measure_depth(value) <= len(contract.input.shape):
        return [value]
    if isinstance(contract.input, Tokens) and _measure_depth(value) == 1:
        return [value]
    return value


def _measure_depth(value: Any) -> int:
    depth = 0
    while isinstance(value, list):
        depth += 1
        value = value[0] if value else None
    return depth


def _parse_metadata(pairs: tuple[str, ...]) -> dict[str, str] | None:
    metadata: dict[str, str] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not (key and equals):
            raise click.UsageError("--meta is KEY=VALUE")
        metadata[key] = value
    return metadata or None
