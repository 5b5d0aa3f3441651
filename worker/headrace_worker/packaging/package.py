"""Package a model: from a file and an example to a version in the store.

    read the model -> read the example -> infer the contract -> dump -> load what was dumped -> compare
                   -> try runtimes -> store

What the store gets has been through everything that a worker will do with it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from headrace.catalog.contract import Contract
from headrace.catalog.validation import check_instances
from headrace.errors import InvalidInput, ModelError
from headrace.wire.keys import check_model_name
from headrace.wire.message import Instance
from headrace_worker import runtimes
from headrace_worker.manifest import Compiled, Example, Format, Limits, Manifest, Trial, installed_libraries
from headrace_worker.models.loader import LoadedModel, verify_and_load
from headrace_worker.packaging import infer
from headrace_worker.packaging.example import read_example
from headrace_worker.packaging.infer import Input
from headrace_worker.packaging.source import Source, read_source
from headrace_worker.packaging.trials import build_reference, choose_fastest, run_trial
from headrace_worker.profile import MIN_ROWS, build_profile, select_rows
from headrace_worker.runtimes.estimator_tree import describe
from headrace_worker.runtimes.python import PythonRuntime, create_model
from headrace_worker.store import artifact
from headrace_worker.store.folder import read_capped
from headrace_worker.store.store import Store

#: Instances of the example a manifest keeps; the contract is inferred from all of them.
_KEPT = 32
#: Rows that are predicted at once for a profile.
_AT_ONCE = 1_000
#: What tries all runtimes and keeps the quickest.
AUTO = "auto"


class _Version(NamedTuple):
    """What the store gets, and the model as a worker would have it."""

    manifest: Manifest
    artifact: bytes
    compiled: bytes
    loaded: LoadedModel


def package(
    store: Store,
    model: str | Path,
    *,
    name: str,
    example: Path | None = None,
    method: str | None = None,
    contract: Path | None = None,
    runtime: str = "sklearn",
    data: Path | None = None,
    sample: Path | None = None,
    trust_pickle: bool = False,
    limits: Limits | None = None,
    max_bytes: int = 2 * 1024**3,
) -> Manifest:
    """Add a model to the store as the next version of `name`; returns its manifest.

    `model` is a file, an MLflow folder, or `module:factory` with the file `data` as its artifact; `example` is a
    .csv, .json or .jsonl file of instances, which an MLflow folder may bring; `method` is the default method;
    `contract` is a JSON file whose `input` is taken instead of the inferred one; `runtime` is that of an
    estimator, or `auto`; `sample` is a file of more instances, for the profile that drift is told by. Raises
    InvalidInput and ModelError.
    """
    check_model_name(name)
    source = read_source(model, data=data, max_bytes=max_bytes, trust_pickle=trust_pickle)
    file = example or source.example
    if file is None:
        raise ModelError(f"{source.title} comes without an example; give one with --example")
    instances = read_example(file, source.estimator)
    given = _read_input(contract) if contract else source.signature
    if source.runtime:
        if runtime not in {AUTO, "sklearn", source.runtime}:
            raise ModelError(f"{source.title} is executed by the runtime {source.runtime}, not by {runtime}")
        manifest = _of_no_estimator(source, instances, given, name=name, method=method)
    else:
        manifest = _of_estimator(source, instances, given, name=name, method=method)
    manifest = msgspec.structs.replace(manifest, limits=limits or Limits())
    version = _stored(manifest, source, max_bytes=max_bytes, trust_pickle=trust_pickle)
    if runtime != "sklearn" and not source.runtime:
        version = _tried(version, source.estimator, runtime, max_bytes=max_bytes, trust_pickle=trust_pickle)
    version = version._replace(manifest=_profiled(version, source.estimator, instances, sample))
    compiled = version.compiled if version.manifest.compiled else None
    return store.add(version.manifest, version.artifact, compiled)


def _of_estimator(
    source: Source, instances: Sequence[Any], given: Input | None, *, name: str, method: str | None
) -> Manifest:
    estimator = source.estimator
    rows = infer.to_instances(estimator, instances)
    inferred = infer.infer(estimator, rows, model=name, method=method, given=given)
    rows = _checked(inferred, rows)[:_KEPT]
    _, expected = infer.infer_methods(estimator, inferred.input, rows, inferred.method)
    return _manifest(inferred, describe(estimator), Example(instances=rows, expected=expected))


def _of_no_estimator(
    source: Source, instances: Sequence[Any], given: Input | None, *, name: str, method: str | None
) -> Manifest:
    """The manifest of what only its own runtime can execute: its contract is what comes of the example."""
    assert source.data is not None  # noqa: S101  # such a source is its bytes
    if source.runtime == "python":
        model = PythonRuntime(create_model(source.factory, source.data))
        found, title = given or infer.infer_input(None, instances), model.title
        predict, methods = model.predict, list(model.methods)
    else:
        from headrace_worker.runtimes.onnx import OnnxRuntime, open_session, refuse_external_tensors
        from headrace_worker.runtimes.onnx_inputs import infer_input

        refuse_external_tensors(source.data, source.title)
        session = open_session(source.data, source.title)
        found, title = given or infer_input(session, instances, source.title), "ONNX"
        onnx = OnnxRuntime(session, found)
        predict, methods = onnx.predict, list(onnx.methods)
    if method is not None:
        if method not in methods:
            raise ModelError(f"{source.title} has no method {method[:64]!r}; it has {', '.join(methods)}")
        methods = [method, *(other for other in methods if other != method)]
    draft = Contract(model=name, version="0", input=found, methods={})
    rows = _checked(draft, instances)
    outputs, _ = infer.run_methods(predict, methods, rows)
    rows = rows[:_KEPT]
    _, expected = infer.run_methods(predict, list(outputs), rows)
    contract = msgspec.structs.replace(draft, methods=outputs)
    manifest = _manifest(contract, title, Example(instances=rows, expected=expected))
    return msgspec.structs.replace(
        manifest,
        runtime=source.runtime,
        factory=source.factory,
        libraries=manifest.libraries | _libraries(source.runtime),
    )


def _profiled(version: _Version, estimator: Any, example: Sequence[Any], sample: Path | None) -> Manifest:
    """The manifest with a profile of the sample, or of the example where that is large enough."""
    manifest, contract = version.manifest, version.loaded.contract
    given = read_example(sample, estimator) if sample else example
    if len(given) < MIN_ROWS:
        if sample is None:
            return manifest
        raise ModelError(f"{sample.name} holds {len(given)} instances; a profile needs {MIN_ROWS} or more")
    rows = select_rows(infer.to_instances(estimator, given))
    title = f"the sample {sample.name}" if sample else "the example"
    instances = _checked(contract, rows, title)
    try:
        predictions = [
            prediction
            for start in range(0, len(instances), _AT_ONCE)
            for prediction in version.loaded.predict(contract.method, instances[start : start + _AT_ONCE])
        ]
    except Exception as error:
        raise ModelError(f"the model fails on {title}: {contract.method}: {type(error).__name__}") from error
    found = build_profile(contract, instances, predictions)
    return msgspec.structs.replace(manifest, profile=found if found.columns else None)


def _manifest(contract: Contract, title: str, example: Example) -> Manifest:
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


def _stored(manifest: Manifest, source: Source, *, max_bytes: int, trust_pickle: bool) -> _Version:
    """The version as it will lie in the store, proven as a worker will prove it."""

    def version(data: bytes, form: Format) -> _Version:
        made = msgspec.structs.replace(manifest, format=form, sha256=_digest(data), size=len(data))
        loaded = verify_and_load(made, data, max_bytes=max_bytes, trust_pickle=form == "joblib" and trust_pickle)
        return _Version(made, data, b"", loaded)

    if source.data is not None:
        return version(source.data, source.format)
    try:
        return version(artifact.dump(source.estimator, "skops"), "skops")
    except ModelError:
        if not trust_pickle:
            raise
        # It came as a pickle that a person trusts, and holds what skops cannot: it stays one.
        return version(artifact.dump(source.estimator, "joblib"), "joblib")


def _tried(usual: _Version, estimator: Any, runtime: str, *, max_bytes: int, trust_pickle: bool) -> _Version:
    """The version with the runtime asked for, or the quickest, and what became of each that was tried.

    Raises ModelError where the one asked for cannot run it as scikit-learn does.
    """
    contract = usual.manifest.contract
    reference = build_reference(estimator, contract, usual.manifest.example.instances)
    versions: dict[str, _Version] = {"sklearn": usual}
    trials: list[Trial] = [run_trial("sklearn", usual.loaded.predict, reference)]
    for name in [runtime] if runtime != AUTO else runtimes.runtime_names():
        if name in {"sklearn", "python"} and runtime == AUTO:
            continue
        try:
            versions[name] = _compiled(usual, estimator, name, max_bytes=max_bytes, trust_pickle=trust_pickle)
        except ModelError as error:
            trials.append(Trial(runtime=name, refused=str(error)))
        else:
            trials.append(run_trial(name, versions[name].loaded.predict, reference))
    chosen = (choose_fastest(trials) or trials[0]) if runtime == AUTO else trials[-1]
    if chosen.refused:
        raise ModelError(f"the runtime {chosen.runtime} cannot run the model: {chosen.refused}")
    version = versions[chosen.runtime]
    return version._replace(manifest=msgspec.structs.replace(version.manifest, trials=tuple(trials)))


def _compiled(usual: _Version, estimator: Any, name: str, *, max_bytes: int, trust_pickle: bool) -> _Version:
    """The version for another runtime. Raises ModelError where that cannot run it."""
    runtime = runtimes.find_runtime(name)
    given = usual.manifest.contract.input
    if why := runtime.explain_rejection(estimator, given):
        raise ModelError(why)
    try:
        data = runtime.compile(estimator, given)
    except Exception as error:
        said = " ".join(str(error).split())[:200]
        raise ModelError(said if isinstance(error, ModelError) else f"{type(error).__name__}: {said}") from error
    if len(data) > max_bytes:
        raise ModelError(f"it makes {len(data):,} bytes, more than the {max_bytes:,} of HEADRACE_MAX_MODEL_BYTES")
    made = msgspec.structs.replace(
        usual.manifest,
        runtime=name,
        compiled=Compiled(sha256=_digest(data), size=len(data)) if data else None,
        libraries=usual.manifest.libraries | _libraries(name),
    )
    loaded = verify_and_load(made, usual.artifact, data, max_bytes=max_bytes, trust_pickle=trust_pickle)
    return _Version(made, usual.artifact, data, loaded)


def _libraries(runtime: str) -> dict[str, str]:
    """Versions of what a runtime needs; what made a model may be absent where it only runs."""

    def installed() -> Iterator[tuple[str, str]]:
        for name in runtimes.find_runtime(runtime).libraries:
            try:
                yield name, metadata.version(name)
            except metadata.PackageNotFoundError:
                continue

    return dict(installed())


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


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


def _checked(inferred: Contract, instances: Sequence[Instance], title: str = "the example") -> list[Instance]:
    try:
        return check_instances(inferred, instances)
    except InvalidInput as error:
        problem = str(error).removeprefix(f"{inferred.model}@{inferred.version}: ")
        raise ModelError(f"{title} does not fit the contract: {problem}") from None
