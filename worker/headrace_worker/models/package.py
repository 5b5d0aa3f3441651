"""Package a model: from a file and an example to a version in the store.

    read the file -> read the example -> infer the contract -> dump -> load what was dumped -> compare -> store

What the store gets has been through everything that a worker will do with it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
from sklearn.model_selection._search import BaseSearchCV

from headrace import contract as contracts
from headrace.contract import Contract
from headrace.envelope import Instance
from headrace.errors import InvalidInput, ModelError
from headrace.queues import check_model_name
from headrace_worker.models import artifact, infer
from headrace_worker.models.example import read_example
from headrace_worker.models.folder import read_capped
from headrace_worker.models.infer import Input
from headrace_worker.models.loader import prove
from headrace_worker.models.manifest import Example, Format, Limits, Manifest, libraries_here
from headrace_worker.models.store import Store
from headrace_worker.runtimes.parts import describe

#: Instances of the example a manifest keeps; the contract is inferred from all of them.
_KEPT = 32


def package(
    store: Store,
    file: Path,
    *,
    name: str,
    example: Path,
    method: str | None = None,
    contract: Path | None = None,
    trust_pickle: bool = False,
    limits: Limits | None = None,
    max_bytes: int = 2 * 1024**3,
) -> Manifest:
    """Add a model file to the store as the next version of `name`; returns its manifest.

    `example` is a .csv, .json or .jsonl file of instances; `method` is the default method; `contract` is a
    JSON file whose `input` is taken instead of the inferred one. Raises InvalidInput and ModelError.
    """
    check_model_name(name)
    estimator, data, form = _read(file, max_bytes=max_bytes, trust_pickle=trust_pickle)
    instances = infer.as_instances(estimator, read_example(example, estimator))
    inferred = infer.infer(
        estimator, instances, model=name, method=method, given=_read_input(contract) if contract else None
    )
    instances = _checked(inferred, instances)[:_KEPT]
    _, expected = infer.infer_methods(estimator, inferred.input, instances, inferred.method)

    def manifest(data: bytes, form: Format) -> Manifest:
        return Manifest(
            name=name,
            version="0",
            created=datetime.now(UTC),
            estimator=describe(estimator),
            format=form,
            sha256=hashlib.sha256(data).hexdigest(),
            size=len(data),
            libraries=libraries_here(),
            contract=inferred,
            limits=limits or Limits(),
            example=Example(instances=instances, expected=expected),
        )

    if data is not None:
        proven = manifest(data, form)
        prove(proven, data, max_bytes=max_bytes, trust_pickle=False)
        return store.add(proven, data)
    try:
        data = artifact.dump(estimator, "skops")
        proven = manifest(data, "skops")
        prove(proven, data, max_bytes=max_bytes, trust_pickle=False)
    except ModelError:
        if not trust_pickle:
            raise
        # It came as a pickle that a person trusts, and holds what skops cannot: it stays one.
        data = artifact.dump(estimator, "joblib")
        proven = manifest(data, "joblib")
        prove(proven, data, max_bytes=max_bytes, trust_pickle=True)
    return store.add(proven, data)


def _read(file: Path, *, max_bytes: int, trust_pickle: bool) -> tuple[Any, bytes | None, Format]:
    """The estimator in a file; and its bytes, where they can be stored as they are."""
    data = read_capped(file, file.name, max_bytes)
    form = artifact.format_of(data, file.name)
    if form == "joblib" and not trust_pickle:
        raise ModelError(
            f"{file.name} is a pickle, and reading a pickle runs whatever code is in it; if you trust its maker, "
            "say --trust-pickle; better, save the model with skops (`skops.io.dump`)"
        )
    estimator = artifact.load(data, form, file.name, max_bytes=max_bytes, trust_pickle=trust_pickle)
    if isinstance(estimator, BaseSearchCV) and hasattr(estimator, "best_estimator_"):
        # What the search found is what predicts; how it searched need not be stored, or trusted.
        return estimator.best_estimator_, None, form
    return estimator, data if form == "skops" else None, form


class _Corrected(msgspec.Struct):
    """The part of a contract that a person may correct; what is given is always what was measured."""

    input: Input


def _read_input(path: Path) -> Input:
    """The input in a contract, or in a manifest as `headrace models show --json` prints it."""
    title = f"the contract {path.name}"
    data = read_capped(path, title, 64 * 1024 * 1024)
    try:
        read = msgspec.json.decode(data)
        if isinstance(read, dict) and "contract" in read:
            read = read["contract"]
        return msgspec.convert(read, _Corrected).input
    except (msgspec.DecodeError, RecursionError) as error:
        raise ModelError(f"{title} cannot be used: {error}; `headrace models show --json` prints one") from None


def _checked(inferred: Contract, instances: Sequence[Instance]) -> list[Instance]:
    try:
        return contracts.check(inferred, instances)
    except InvalidInput as error:
        problem = str(error).removeprefix(f"{inferred.model}@{inferred.version}: ")
        raise ModelError(f"the example does not fit the contract: {problem}") from None
