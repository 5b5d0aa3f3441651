"""Package a model: from a file and an example to a version in the store.

    read the model -> read the example -> draft the manifest -> dump -> load the dumped bytes -> run the example
                   -> compare with the original -> check that rows are independent
                   -> try runtimes, and compare and check each -> store

A stored version has passed every step that a worker takes to load it.
"""

from __future__ import annotations

import contextlib
import hashlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import msgspec

from headrace.catalog.contract import Contract, Named
from headrace.errors import HeadraceError, ModelError
from headrace.wire.names import check_model_name
from headrace.wire.stored import DECODE_ERRORS
from headrace_worker import runtimes
from headrace_worker.manifest import Compiled, Format, Limits, Manifest, OwnCode, Trial
from headrace_worker.models.loader import LoadedModel, verify_and_load
from headrace_worker.own_modules import OwnModules
from headrace_worker.packaging.arguments import check_arguments
from headrace_worker.packaging.checks import (
    check_against_original,
    check_rows_are_independent,
    predict_with_original,
)
from headrace_worker.packaging.draft import (
    draft_from_estimator,
    draft_from_runtime,
    fit_to_contract,
    runtime_libraries,
)
from headrace_worker.packaging.example import read_example
from headrace_worker.packaging.expected import split_expected
from headrace_worker.packaging.infer import to_instances
from headrace_worker.packaging.inverse import Inverse, invert
from headrace_worker.packaging.prover import prove_version
from headrace_worker.packaging.source import Source, read_source
from headrace_worker.packaging.table import Table
from headrace_worker.packaging.trials import build_reference, choose_fastest, run_trial
from headrace_worker.profile import MIN_ROWS, build_profile, select_rows
from headrace_worker.runtimes import InputSchema
from headrace_worker.runtimes.estimator_tree import takes_objects
from headrace_worker.store import artifact
from headrace_worker.store.folder import read_capped
from headrace_worker.store.store import Store

#: The number of instances in each call when a profile is built.
_PROFILE_BATCH = 1_000
#: The largest contract file, in bytes.
_MAX_CONTRACT_BYTES = 64 * 1024 * 1024
#: The name that stands for the fastest runtime, which is found by trying all.
AUTO = "auto"


class _Version(NamedTuple):
    """The files for the store, and the model as a worker would load it."""

    manifest: Manifest
    artifact: bytes
    compiled: bytes
    loaded: LoadedModel


def package(
    store: Store,
    model: Any,
    *,
    name: str,
    example: Path | Table | None = None,
    expected: Path | str | None = None,
    method: str | None = None,
    arguments: Mapping[str, Any] = MappingProxyType({}),
    contract: Path | None = None,
    runtime: str = "sklearn",
    data: Path | None = None,
    code: Sequence[Path] = (),
    sample: Path | None = None,
    trust_pickle: bool = False,
    limits: Limits | None = None,
    max_bytes: int = 2 * 1024**3,
) -> Manifest:
    """Add a model to the store as the next version of `name`, and return its manifest.

    `model` is a fitted estimator or booster, a file, an MLflow folder, or `module:factory` with the file `data` as
    its artifact. `example` is a table, or a .parquet, .csv, .json or .jsonl file of instances, which an MLflow
    folder may contain. `expected` holds the original's predictions for them: a file, or the name of a column of
    the example. A typed table needs none: the estimator predicts it. `method` is the default method, and
    `arguments` are constant arguments of it. `contract` is a JSON file whose `input` replaces the inferred one.
    `runtime` executes an estimator; `auto` finds the fastest. `code` are the files and folders of the modules that
    the version brings along. `sample` is a file of more instances, for the profile that drift is measured against.

    Raises InvalidInput and ModelError.
    """
    check_model_name(name)
    constant = check_arguments(arguments)
    source = read_source(model, data=data, code=code, max_bytes=max_bytes, trust_pickle=trust_pickle)
    if method == "inverse_transform" and source.estimator is not None:
        source = invert(source)
    with source.own_modules.importable(), _explaining_errors(source):
        version = _make_version(
            source,
            name=name,
            example=example,
            expected=expected,
            method=method,
            arguments=constant,
            contract=contract,
            runtime=runtime,
            sample=sample,
            trust_pickle=trust_pickle,
            limits=limits,
            max_bytes=max_bytes,
        )
    compiled = version.compiled if version.manifest.compiled else None
    return store.add(version.manifest, version.artifact, compiled, source.code)


@contextlib.contextmanager
def _explaining_errors(source: Source) -> Iterator[None]:
    """Translate what a model raises in the block, and name its older scikit-learn if it has one."""
    try:
        yield
    except ModelError as error:
        if not source.made_with:
            raise
        raise ModelError(
            f"{error}; the model was made by scikit-learn {source.made_with}: "
            f"{artifact.describe_remedy(source.made_with)}"
        ) from error
    except (HeadraceError, MemoryError):
        raise
    except (Exception, SystemExit) as error:
        raise ModelError(
            f"{source.title} does not behave as a model of scikit-learn does: {type(error).__name__}: "
            f"{' '.join(str(error).split())[:200]}; HEADRACE_DEBUG=1 shows where"
        ) from error


def _make_version(
    source: Source,
    *,
    name: str,
    example: Path | Table | None,
    expected: Path | str | None,
    method: str | None,
    arguments: dict[str, Any],
    contract: Path | None,
    runtime: str,
    sample: Path | None,
    trust_pickle: bool,
    limits: Limits | None,
    max_bytes: int,
) -> _Version:
    """Make the version of a model that was read, and check it. The arguments are those of `package`."""
    rows = example or source.example
    if rows is None:
        raise ModelError(f"{source.title} comes without an example; give one with --example")
    table, predictions = split_expected(
        rows if isinstance(rows, Table) else read_example(rows, source.estimator), expected
    )
    input_schema = _read_input_schema(contract) if contract else source.signature
    if source.runtime:
        if runtime not in {AUTO, "sklearn", source.runtime}:
            raise ModelError(f"{source.title} is executed by the runtime {source.runtime}, not by {runtime}")
        if arguments:
            raise ModelError(f"{source.title} has no methods with arguments; only an estimator has")
        manifest = draft_from_runtime(source, table, input_schema, name=name, method=method)
    else:
        manifest = draft_from_estimator(source, table, input_schema, name=name, method=method, arguments=arguments)
    manifest = msgspec.structs.replace(
        manifest,
        limits=_set_load_after_fork(limits or Limits(), needed=manifest.limits.load_after_fork),
        arguments=arguments,
        code=_describe_code(source),
        made_with=source.made_with,
    )
    version = _build_version(manifest, source, max_bytes=max_bytes, trust_pickle=trust_pickle)
    version = version._replace(manifest=_prove(version, source, table, predictions))
    if arguments and runtime not in {AUTO, "sklearn"}:
        raise ModelError(f"the runtime {runtime} passes no arguments to methods; only sklearn does")
    if runtime != "sklearn" and not (source.runtime or arguments):

        def prove(compiled: _Version) -> _Version:
            return compiled._replace(manifest=_prove(compiled, source, table, predictions))

        version = _choose_runtime(version, source, runtime, prove, max_bytes=max_bytes, trust_pickle=trust_pickle)
    return version._replace(manifest=_add_profile(version, source.estimator, table.instances, sample))


def _build_version(manifest: Manifest, source: Source, *, max_bytes: int, trust_pickle: bool) -> _Version:
    """Build the version for the store, and load it as a worker does. Raises ModelError."""

    def build(data: bytes, form: Format) -> _Version:
        libraries = manifest.libraries | (artifact.find_cloudpickle(data) if form == "joblib" else {})
        complete = msgspec.structs.replace(
            manifest, format=form, sha256=_digest(data), size=len(data), libraries=libraries
        )
        is_trusted = trust_pickle and (form == "joblib" or bool(source.code))
        prove_version(complete, data, b"", source.code, max_bytes=max_bytes, trust_pickle=is_trusted)
        loaded = verify_and_load(complete, data, b"", source.code, max_bytes=max_bytes, trust_pickle=is_trusted)
        return _Version(complete, data, b"", loaded)

    if source.data is not None:
        return build(source.data, source.format)
    stored = source.estimator.estimator if isinstance(source.estimator, Inverse) else source.estimator
    try:
        return build(artifact.dump(stored, "skops"), "skops")
    except ModelError:
        if not trust_pickle:
            raise
        # The user trusts the pickle it was read from, and skops cannot store it.
        return build(source.pickle or artifact.dump(stored, "joblib"), "joblib")


def _choose_runtime(
    version: _Version,
    source: Source,
    runtime: str,
    prove: Callable[[_Version], _Version],
    *,
    max_bytes: int,
    trust_pickle: bool,
) -> _Version:
    """Return the version for a runtime, or for the fastest, with the trials of all that were tried.

    `version` is that for scikit-learn. `prove` compares another with the original, and raises ModelError. Raises
    ModelError if the named runtime cannot predict as scikit-learn does.
    """
    contract = version.manifest.contract
    reference = build_reference(source.estimator, contract, version.manifest.example.instances)
    versions: dict[str, _Version] = {"sklearn": version}
    trials: list[Trial] = [run_trial("sklearn", version.loaded.predict, reference)]
    for name in [runtime] if runtime != AUTO else runtimes.runtime_names():
        if name in {"sklearn", "python"} and runtime == AUTO:
            continue
        try:
            versions[name] = prove(
                _compile_version(version, source, name, max_bytes=max_bytes, trust_pickle=trust_pickle)
            )
        except ModelError as error:
            trials.append(Trial(runtime=name, refused=str(error)))
        else:
            trials.append(run_trial(name, versions[name].loaded.predict, reference))
    chosen = (choose_fastest(trials) or trials[0]) if runtime == AUTO else trials[-1]
    if chosen.refused:
        raise ModelError(f"the runtime {chosen.runtime} cannot run the model: {chosen.refused}")
    version = versions[chosen.runtime]
    return version._replace(manifest=msgspec.structs.replace(version.manifest, trials=tuple(trials)))


def _compile_version(
    version: _Version, source: Source, name: str, *, max_bytes: int, trust_pickle: bool
) -> _Version:
    """Compile a version for another runtime, and load it. Raises ModelError if the runtime cannot run it."""
    runtime, estimator, code = runtimes.find_runtime(name), source.estimator, source.code
    input_schema = version.manifest.contract.input
    if reason := runtime.explain_rejection(estimator, input_schema):
        raise ModelError(reason)
    try:
        data = runtime.compile(estimator, input_schema)
    except Exception as error:
        message = " ".join(str(error).split())[:200]
        if not isinstance(error, ModelError):
            message = f"{type(error).__name__}: {message}"
        raise ModelError(message) from error
    if len(data) > max_bytes:
        raise ModelError(
            f"the compiled model takes {len(data):,} bytes, more than the {max_bytes:,} of "
            "HEADRACE_MAX_MODEL_BYTES"
        )
    manifest = msgspec.structs.replace(
        version.manifest,
        runtime=name,
        limits=_set_load_after_fork(version.manifest.limits, needed=runtimes.must_load_after_fork(runtime)),
        compiled=Compiled(sha256=_digest(data), size=len(data)) if data else None,
        libraries=version.manifest.libraries | runtime_libraries(name),
    )
    artifact_bytes = version.artifact
    prove_version(manifest, artifact_bytes, data, code, max_bytes=max_bytes, trust_pickle=trust_pickle)
    loaded = verify_and_load(manifest, artifact_bytes, data, code, max_bytes=max_bytes, trust_pickle=trust_pickle)
    return _Version(manifest, version.artifact, data, loaded)


def _prove(version: _Version, source: Source, table: Table, predictions: list[Any] | None) -> Manifest:
    """Return the manifest with the comparison with the original model. Raises ModelError where they differ."""
    loaded, manifest = version.loaded, version.manifest
    original = source.estimator if source.original is None else source.original
    instances = fit_to_contract(loaded.contract, to_instances(source.estimator, table.instances))
    if predictions is not None:
        expected, origin = {loaded.contract.method: predictions}, "the expected predictions"
    elif original is not None and (data := _own_data(original, table, loaded.contract)) is not None:
        expected = predict_with_original(original, data, manifest.methods, len(instances), manifest.arguments)
        origin = "the model's own predictions for the table"
    else:
        expected, origin = {}, ""
    proof = check_against_original(loaded, instances, expected, origin) if expected else None
    check_rows_are_independent(loaded, manifest.example.instances)
    return msgspec.structs.replace(manifest, proof=proof)


def _own_data(original: Any, table: Table, contract: Contract) -> Any:
    """Return the table as the original takes it; None if it has no such form."""
    if table.data is not None or not isinstance(contract.input, Named) or not takes_objects(original):
        return table.data
    required = [feature.name for feature in contract.input.features if not feature.optional]
    # A null of a required feature stands for an absent key, which the original has no null for.
    has_null = any(row.get(name) is None for row in table.instances for name in required)
    return None if has_null else table.instances


def _add_profile(version: _Version, estimator: Any, example: Sequence[Any], sample: Path | None) -> Manifest:
    """Return the manifest with a profile of the sample, or of the example if that is large enough."""
    manifest, contract = version.manifest, version.loaded.contract
    rows = read_example(sample, estimator).instances if sample else example
    if len(rows) < MIN_ROWS:
        if sample is None:
            return manifest
        raise ModelError(f"{sample.name} holds {len(rows)} instances; a profile needs {MIN_ROWS} or more")
    title = f"the sample {sample.name}" if sample else "the example"
    instances = fit_to_contract(contract, select_rows(to_instances(estimator, rows)), title)
    try:
        predictions = [
            prediction
            for start in range(0, len(instances), _PROFILE_BATCH)
            for prediction in version.loaded.predict(contract.method, instances[start : start + _PROFILE_BATCH])
        ]
    except Exception as error:
        raise ModelError(f"the model fails on {title}: {contract.method}: {type(error).__name__}") from error
    profile = build_profile(contract, instances, predictions)
    return msgspec.structs.replace(manifest, profile=profile if profile.columns else None)


def _set_load_after_fork(limits: Limits, *, needed: bool) -> Limits:
    """Return the limits with `load_after_fork` if the model or its runtime says that it is needed."""
    return msgspec.structs.replace(limits, load_after_fork=True) if needed else limits


def _describe_code(source: Source) -> OwnCode | None:
    """Describe the modules that a version brings along, for its manifest; None for none."""
    if not source.code:
        return None
    names = OwnModules(source.code, source.title, max_bytes=sys.maxsize).names
    return OwnCode(sha256=_digest(source.code), size=len(source.code), modules=tuple(sorted(names)))


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


class _CorrectedContract(msgspec.Struct):
    """The only field of a contract that a user may correct. Outputs are always inferred."""

    input: InputSchema


def _read_input_schema(path: Path) -> InputSchema:
    """Read the input of a contract, or of a manifest as `headrace models show --json` prints it."""
    title = f"the contract {path.name}"
    data = read_capped(path, title, _MAX_CONTRACT_BYTES)
    try:
        contract = msgspec.json.decode(data)
        if isinstance(contract, dict) and "contract" in contract:
            contract = contract["contract"]
        schema = msgspec.convert(contract, _CorrectedContract).input
    except DECODE_ERRORS as error:
        raise ModelError(f"{title} cannot be used: {error}; `headrace models show --json` prints one") from None
    if isinstance(schema, Named) and not schema.features:
        raise ModelError(
            f"{title} cannot be used: it names no features; `headrace models show --json` prints them"
        )
    return schema
