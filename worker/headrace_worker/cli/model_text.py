"""The text of a manifest, as `headrace models add` and `headrace models show` print it."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import msgspec

from headrace.catalog.contract import Array, Contract, Feature, Named, Output, Text, Tokens
from headrace.cli.tables import format_table, terminal_width
from headrace.text import format_bytes

if TYPE_CHECKING:
    from headrace_worker.manifest import Limits, Manifest

#: Categories and classes that are listed by name.
_MAX_LISTED = 12


def manifest_lines(manifest: Manifest) -> Iterator[str]:
    """Yield the description of a version: its artifact, limits and contract."""
    libraries = ", ".join(f"{name} {version}" for name, version in manifest.libraries.items())
    limits = manifest.limits
    yield f"{manifest.title}  {manifest.estimator}"
    yield f"  added     {manifest.created:%Y-%m-%d %H:%M} UTC, with {libraries}"
    if manifest.made_with:
        yield f"  made      by scikit-learn {manifest.made_with}"
    yield f"  artifact  {manifest.format}, {format_bytes(manifest.size)}, sha256 {manifest.sha256}"
    yield f"  runtime   {manifest.runtime}{f', {manifest.factory}' if manifest.factory else ''}"
    if manifest.code:
        code = manifest.code
        yield f"  code      {', '.join(code.modules)}, {format_bytes(code.size)}, sha256 {code.sha256}"
    if manifest.arguments:
        arguments = ", ".join(
            f"{name}={msgspec.json.encode(value).decode()}" for name, value in manifest.arguments.items()
        )
        yield f"  arguments {manifest.contract.method}({arguments})"
    yield f"  batches   up to {limits.max_batch_instances:,} instances, {format_bytes(limits.max_batch_bytes)}"
    yield f"  runs      {_runs(limits)}"
    if limits.load_after_fork:
        yield "  loaded    by each pool process after the fork (--load-after-fork)"
    yield f"  example   {len(manifest.example.instances)} instances"
    if manifest.profile:
        features, instances = len(manifest.profile.features), sum(manifest.profile.columns[0].rows)
        yield f"  profile   {instances:,} instances, {features} features"
    yield ""
    yield from _contract_lines(manifest.contract)


def check_lines(manifest: Manifest, rows: int | None) -> Iterator[str]:
    """Yield what was checked when the version was packaged, and what could not be.

    `rows` is the number of rows that it was packaged with, if it is known.
    """
    stored, proof = len(manifest.example.instances), manifest.proof
    if rows is not None and rows > stored:
        yield f"the manifest keeps the first {stored} of {rows:,} rows as the example"
    if proof is None:
        yield (
            "nothing was compared with the model's own predictions: give these with --expected, or give a typed "
            "table: a frame, an array or Parquet"
        )
    else:
        yield f"predicts as {proof.source}: {proof.compared:,} rows, largest difference {proof.difference:.2g}"
    if manifest.limits.alone:
        yield "each job is predicted in a call of its own (--alone)"
    else:
        yield "each row has the same predictions alone, together and in reversed order"
    if manifest.profile is None:
        yield "no profile, so drift is not measured: give 100 rows or more, in the table or with --profile FILE"


def _runs(limits: Limits) -> str:
    soft = f", interrupted after {limits.soft_time_limit:g} s" if limits.soft_time_limit else ""
    hard = f", killed after {limits.time_limit:g} s" if limits.time_limit else ""
    retried = f", also retried on {', '.join(limits.retry_on)}" if limits.retry_on else ""
    return f"up to {limits.max_attempts} attempts{soft}{hard}{retried}"


def _contract_lines(contract: Contract) -> Iterator[str]:
    match contract.input:
        case Named(features=features):
            yield f"input: objects of {len(features)} named features"
            rows = [
                (feature.name, feature.kind, feature.dtype or "", _missing(feature), _categories(feature))
                for feature in features
            ]
            yield from _indented(_without_empty([("FEATURE", "KIND", "TYPE", "MISSING", "CATEGORIES"), *rows]))
        case Array(shape=shape, kind=kind, nullable=nullable):
            size = " x ".join(map(str, shape)) or "single"
            yield f"input: lists of {size} values, kind {kind}, missing values {_allowed(nullable)}"
        case Text():
            yield "input: texts"
        case Tokens():
            yield "input: lists of strings, of any length"
    yield ""
    yield "output, the default method first"
    outputs = [(name, _shape(output), _classes(output)) for name, output in contract.methods.items()]
    yield from _indented([("METHOD", "RETURNS", "CLASSES"), *outputs])


def _indented(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    width = terminal_width(sys.stdout)
    for line in format_table(rows, texts={len(rows[0]) - 1}, width=None if width is None else width - 2):
        yield f"  {line}"


def _without_empty(rows: Sequence[Sequence[str]]) -> list[Sequence[str]]:
    """Return the table without the columns that are empty below their title."""
    used = [number for number in range(len(rows[0])) if any(row[number] for row in rows[1:])]
    return [[row[number] for number in used] for row in rows]


def _missing(feature: Feature) -> str:
    return "may be left out" if feature.optional else _allowed(feature.nullable)


def _allowed(nullable: bool) -> str:
    return "allowed" if nullable else "no"


def _categories(feature: Feature) -> str:
    if feature.categories is None:
        return "any" if feature.kind == "category" else ""
    return _shortened([str(category) for category in feature.categories])


def _shape(output: Output) -> str:
    return f"a list of {' x '.join(map(str, output.shape))}" if output.shape else "a value"


def _classes(output: Output) -> str:
    return _shortened([str(name) for name in output.classes or ()])


def _shortened(values: Sequence[str]) -> str:
    hidden = len(values) - _MAX_LISTED
    return ", ".join(values[:_MAX_LISTED]) + (f" and {hidden} more" if hidden > 0 else "")
