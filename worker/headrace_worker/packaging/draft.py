"""Draft the manifest of a version: its contract and example, without an artifact yet."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from importlib import metadata
from typing import Any

import msgspec

from headrace.catalog.contract import Contract, Named
from headrace.catalog.typical import typical_instance
from headrace.catalog.validation import check_instances
from headrace.errors import InvalidInput, ModelError
from headrace.wire.message import Instance
from headrace_worker.boosters import BoosterModel
from headrace_worker.boosters.formats import is_booster_format
from headrace_worker.manifest import Example, Limits, Manifest, installed_libraries
from headrace_worker.packaging.infer import infer, order_features, to_instances
from headrace_worker.packaging.infer_input import infer_input
from headrace_worker.packaging.infer_methods import infer_methods, run_methods
from headrace_worker.packaging.libraries import find_libraries
from headrace_worker.packaging.source import Source
from headrace_worker.packaging.table import Table
from headrace_worker.runtimes import InputSchema, find_runtime, must_load_after_fork, pyfunc
from headrace_worker.runtimes.estimator_tree import describe
from headrace_worker.runtimes.input_arrays import check_no_optional
from headrace_worker.runtimes.python import PythonRuntime, create_model

#: The number of the example's instances that a manifest keeps; the contract is inferred from all.
_KEPT_INSTANCES = 32


def draft_from_estimator(
    source: Source,
    table: Table,
    input_schema: InputSchema | None,
    *,
    name: str,
    method: str | None,
    arguments: dict[str, Any],
) -> Manifest:
    """Draft the manifest of an estimator.

    `input_schema` replaces the inferred input. `arguments` are constant arguments of the default method. Raises
    ModelError.
    """
    estimator = source.estimator
    if isinstance(estimator, BoosterModel) and isinstance(table.schema, Named):
        estimator.use_names([feature.name for feature in table.schema.features])
    converted = to_instances(estimator, table.instances)
    typed = order_features(estimator, table.schema)
    contract = infer(
        estimator,
        converted,
        model=name,
        method=method,
        typed=typed,
        input_schema=input_schema,
        arguments=arguments,
    )
    example = fit_to_contract(contract, converted)[:_KEPT_INSTANCES]
    _, expected = infer_methods(estimator, contract.input, example, contract.method, arguments)
    title = source.estimator_name or describe(estimator)
    manifest = _draft(contract, title, Example(instances=example, expected=expected))
    libraries = manifest.libraries | find_libraries(estimator if source.original is None else source.original)
    if is_booster_format(source.format):
        libraries |= {source.format: importlib.import_module(source.format).__version__}
    return msgspec.structs.replace(manifest, classes=source.classes, libraries=libraries)


def draft_from_runtime(
    source: Source, table: Table, input_schema: InputSchema | None, *, name: str, method: str | None
) -> Manifest:
    """Draft the manifest of a model that only one runtime can execute. Its contract is inferred from the example.

    Raises ModelError.
    """
    assert source.data is not None  # noqa: S101  # only an estimator has no bytes
    instances, classes = table.instances, None
    if source.runtime == "python":
        model = PythonRuntime(create_model(source.factory, source.data))
        schema, title = input_schema or infer_input(None, instances), model.title
        if source.factory == pyfunc.FACTORY:  # MLflow takes a table
            check_no_optional(schema)
        predict, methods = model.predict, list(model.methods)
        limits = Limits(load_after_fork=must_load_after_fork(model))
    else:
        from headrace_worker.runtimes.onnx import (
            OnnxRuntime,
            open_session,
            read_class_labels,
            refuse_external_tensors,
        )
        from headrace_worker.runtimes.onnx_inputs import infer_input as infer_onnx_input

        refuse_external_tensors(source.data, source.title)
        session = open_session(source.data, source.title)
        schema, title = input_schema or infer_onnx_input(session, instances, source.title), "ONNX"
        onnx = OnnxRuntime(session, schema)
        predict, methods = onnx.predict, list(onnx.methods)
        limits = Limits()
        classes = read_class_labels(source.data)
    if method is not None:
        if method not in methods:
            raise ModelError(f"{source.title} has no method {method[:64]!r}; it has {', '.join(methods)}")
        methods = [method, *(other for other in methods if other != method)]
    contract = Contract(model=name, version="0", input=schema, methods={})
    checked = fit_to_contract(contract, instances)
    outputs, _ = run_methods(predict, methods, checked, classes)
    example = checked[:_KEPT_INSTANCES]
    _, expected = run_methods(predict, list(outputs), example)
    contract = msgspec.structs.replace(contract, methods=outputs)
    manifest = _draft(contract, title, Example(instances=example, expected=expected))
    libraries = manifest.libraries | runtime_libraries(source.runtime)
    if source.factory == pyfunc.FACTORY:
        libraries |= {"mlflow": metadata.version("mlflow")}
    return msgspec.structs.replace(
        manifest, runtime=source.runtime, factory=source.factory, limits=limits, libraries=libraries
    )


def fit_to_contract(
    contract: Contract, instances: Sequence[Instance], title: str = "the example"
) -> list[Instance]:
    """Check instances against a contract, and return them as jobs would have them. Raises ModelError."""
    try:
        return check_instances(contract, instances)
    except InvalidInput as error:
        problem = str(error).removeprefix(f"{contract.model}@{contract.version}: ")
        raise ModelError(f"{title} does not fit the contract: {problem}") from None


def runtime_libraries(runtime: str) -> dict[str, str]:
    """Return the versions of a runtime's libraries. A library that only converts models may be missing."""

    def installed() -> Iterator[tuple[str, str]]:
        for name in find_runtime(runtime).libraries:
            try:
                yield name, metadata.version(name)
            except metadata.PackageNotFoundError:
                continue

    return dict(installed())


def _draft(contract: Contract, title: str, example: Example) -> Manifest:
    contract = msgspec.structs.replace(contract, example=typical_instance(contract.input, example.instances))
    return Manifest(
        name=contract.model,
        version="0",
        created=datetime.now(UTC),
        estimator=title,
        format="skops",
        sha256="",
        size=0,
        libraries=installed_libraries(),
        contract=contract,
        example=example,
    )
