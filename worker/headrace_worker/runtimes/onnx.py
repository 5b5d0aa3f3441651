"""ONNX Runtime: an ONNX file that somebody added, or what skl2onnx makes of an estimator.

skl2onnx's result computes with 64-bit floats where it can, as scikit-learn does, and else with 32-bit ones.
What it has no method for stays scikit-learn's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar, Self, TypeVar

import msgspec
import numpy as np
import onnxruntime
from sklearn.base import is_classifier
from sklearn.compose import ColumnTransformer
from sklearn.tree import BaseDecisionTree

from headrace.catalog.contract import Array, Feature, Kind, Named, Text
from headrace.errors import InvalidInput, ModelError
from headrace.wire.message import Instance
from headrace_worker.runtimes import VerifiedVersion
from headrace_worker.runtimes.estimator_tree import iter_estimators, split_pipeline
from headrace_worker.runtimes.input_arrays import make_number_stacker, to_float32
from headrace_worker.runtimes.predictions import to_predictions
from headrace_worker.runtimes.sklearn import SklearnRuntime

#: Where a file says which of its outputs is whose method's; ours do.
_METHODS = "headrace.methods"
#: Where a file says which features its inputs are, in their order, for skl2onnx changes the names.
_FEATURES = "headrace.features"
_Said = TypeVar("_Said")
_FLOATS = {"tensor(float)": np.float32, "tensor(double)": np.float64}
_TYPES = _FLOATS | {
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(bool)": np.bool_,
    "tensor(string)": np.object_,
}
_KINDS: dict[str, Kind] = {
    "tensor(float)": "number",
    "tensor(double)": "number",
    "tensor(int64)": "integer",
    "tensor(int32)": "integer",
    "tensor(bool)": "boolean",
    "tensor(string)": "string",
}


class OnnxRuntime:
    """Runs a session, and the estimator where a method is not the session's."""

    libraries: ClassVar[tuple[str, ...]] = ("onnxruntime", "skl2onnx")

    def __init__(
        self,
        session: onnxruntime.InferenceSession,
        given: Named | Array | Text,
        others: SklearnRuntime | None = None,
    ) -> None:
        self._session, self._others = session, others
        self._feed = make_feeder(session, given)
        self.methods = output_names(session)

    @classmethod
    def explain_rejection(cls, estimator: Any, given: Named | Array | Text) -> str:
        """It executes what skl2onnx converts, which only a try can tell."""
        if estimator is None:
            return "it executes ONNX files and estimators"
        if isinstance(given, Array) and len(given.shape) != 1:
            return "skl2onnx converts estimators of flat rows only"
        return ""

    @classmethod
    def compile(cls, estimator: Any, given: Named | Array | Text) -> bytes:
        """An ONNX file that computes what the estimator does. Raises ModelError where skl2onnx makes none."""
        # Trees compare in 32 bits; with 64, they would send other rows left than scikit-learn does.
        trees = any(isinstance(part, BaseDecisionTree) for part in iter_estimators(estimator))
        said = ""
        for doubles in (False,) if trees else (True, False):
            try:
                file = _convert(estimator, given, doubles=doubles)
                open_session(file, "what skl2onnx made")
            except Exception as error:  # noqa: BLE001  # a converter may fail with any
                said = said or _short(error)
            else:
                return file
        raise ModelError(f"skl2onnx cannot convert it: {said}")

    @classmethod
    def load(cls, version: VerifiedVersion) -> Self:
        """The session of a version. Raises ModelError."""
        manifest = version.manifest
        session = open_session(version.compiled or version.artifact, manifest.title)
        given = manifest.contract.input
        others = None
        if set(manifest.methods) - set(output_names(session)):
            others = SklearnRuntime(version.estimator(), given, own=True)
        return cls(session, given, others)

    def predict(self, method: str, instances: Sequence[Instance]) -> list[Any]:
        """One prediction for each instance. Raises what ONNX Runtime raises, InvalidInput and ModelError."""
        if method not in self.methods:
            if self._others is None:
                raise ModelError(f"the ONNX file has no {method}; it has {', '.join(self.methods)}")
            return self._others.predict(method, instances)
        (output,) = self._session.run([self.methods[method]], self._feed(instances))
        if isinstance(output, list):  # of one object for each row: the probability of each class
            output = np.array([[row[name] for name in sorted(row)] for row in output])
        if output.shape == (len(instances), 1) and method != "transform":
            output = output[:, 0]
        return to_predictions(output, len(instances))


def open_session(data: bytes, title: str) -> onnxruntime.InferenceSession:
    """A session of one thread, which survives a fork: one of several would wait for threads it left behind.

    Raises ModelError for bytes that are no model.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 4
    try:
        return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise ModelError(f"{title} is no model ONNX Runtime can run: {_short(error)}") from error


def refuse_external_tensors(data: bytes, title: str) -> None:
    """Refuse a model whose tensors lie in other files: it could name any file of a machine that loads it.

    Raises ModelError.
    """
    import onnx

    try:
        waiting: list[Any] = [onnx.load_from_string(data).graph]
    except Exception as error:
        raise ModelError(f"{title} is no ONNX file: {_short(error)}") from error
    while waiting:
        graph = waiting.pop()
        attributes = [attribute for node in graph.node for attribute in node.attribute]
        sparse = [tensor for one in graph.sparse_initializer for tensor in (one.values, one.indices)]
        tensors = [*graph.initializer, *sparse]
        for attribute in attributes:
            tensors += [attribute.t, *attribute.tensors]
            waiting += [*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs]
        if any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in tensors):
            raise ModelError(f"{title} keeps tensors in other files; save it as one (`onnx.save_model` does)")


def output_names(session: onnxruntime.InferenceSession) -> dict[str, str]:
    """The outputs of a session, by the method each answers; the default one first.

    As the file says, if it is ours; else the first output is `predict`, one named `...proba...` is
    `predict_proba`, and any other is a method of its own name.
    """
    said = _said(session, _METHODS, dict[str, str])
    names = [output.name for output in session.get_outputs()]
    if said is not None:
        return {method: name for method, name in said.items() if name in names}
    methods = {"predict": names[0]}
    for name in names[1:]:
        is_first = "proba" in name and "predict_proba" not in methods
        methods["predict_proba" if is_first else name] = name
    return methods


def infer_input(
    session: onnxruntime.InferenceSession, instances: Sequence[Any], title: str
) -> Named | Array | Text:
    """The input of a contract that a session's inputs stand for; the example says what they leave open.

    Raises ModelError where instances cannot be made into them.
    """
    inputs = session.get_inputs()
    for one in inputs:
        if one.type not in _KINDS:
            raise ModelError(f"{title}: the input {one.name!r} is a {one.type}, which is nothing of an instance")
        if not one.shape or isinstance(one.shape[0], int):
            raise ModelError(f"{title}: the input {one.name!r} has no free first dimension; export it with one")
    first = instances[0]
    if len(inputs) > 1 or (isinstance(first, dict) and [one.name for one in inputs] == list(first)):
        return Named(features=tuple(_feature(one, instances, title) for one in inputs))
    (only,) = inputs
    if isinstance(first, str):
        return Text()
    if isinstance(first, dict):
        names = list(first)
        if len(only.shape) != 2 or (isinstance(only.shape[1], int) and only.shape[1] != len(names)):
            raise ModelError(
                f"{title} takes rows of shape {only.shape[1:]}; the example holds {len(names)} features"
            )
        nullable = [any(instance.get(name) is None for instance in instances) for name in names]
        pairs = zip(names, nullable, strict=True)
        return Named(features=tuple(Feature(name=n, kind=_KINDS[only.type], nullable=null) for n, null in pairs))
    shape = np.shape(np.array(first, dtype=object))
    if len(shape) != len(only.shape) - 1 or any(
        isinstance(asked, int) and asked != has for asked, has in zip(only.shape[1:], shape, strict=True)
    ):
        raise ModelError(f"{title} takes rows of shape {only.shape[1:]}; those of the example are {list(shape)}")
    missing = any(value is None for instance in instances for value in np.array(instance, dtype=object).flat)
    return Array(shape=shape, kind=_KINDS[only.type], nullable=missing and only.type in _FLOATS)


def _feature(one: Any, instances: Sequence[Any], title: str) -> Feature:
    if not all(isinstance(instance, dict) and one.name in instance for instance in instances):
        raise ModelError(f"{title} takes {one.name!r}, which not every instance of the example has")
    missing = any(instance[one.name] is None for instance in instances)
    return Feature(name=one.name, kind=_KINDS[one.type], nullable=missing and one.type in _FLOATS)


def make_feeder(
    session: onnxruntime.InferenceSession, given: Named | Array | Text
) -> Callable[[Sequence[Any]], dict[str, Any]]:
    """What makes the inputs of a session of a batch of instances. Raises ModelError where they are not alike."""
    inputs = session.get_inputs()
    for one in inputs:
        if one.type not in _TYPES:
            raise ModelError(f"the input {one.name!r} is a {one.type}, which instances cannot be made into")
    numbers = make_number_stacker(given)
    if len(inputs) == 1 and isinstance(given, Text):
        name, shape = inputs[0].name, _inner_shape(inputs[0])
        return lambda texts: {name: np.array(texts, dtype=object).reshape(-1, *shape)}
    if len(inputs) == 1 and numbers is not None and not _is_column(inputs[0], given):
        name, kind = inputs[0].name, inputs[0].type
        return lambda instances: {name: _cast(numbers(instances), kind)}
    names = _said(session, _FEATURES, list[str]) or [one.name for one in inputs]
    known = {feature.name for feature in given.features} if isinstance(given, Named) else set()
    if len(names) != len(inputs) or not known.issuperset(names):
        raise ModelError(f"the ONNX file takes {', '.join(names)}, which the contract does not have")
    columns = [(name, one.name, one.type, _inner_shape(one)) for name, one in zip(names, inputs, strict=True)]

    def feed(instances: Sequence[Any]) -> dict[str, Any]:
        return {
            name: _column([instance[feature] for instance in instances], kind).reshape(-1, *shape)
            for feature, name, kind, shape in columns
        }

    return feed


def _said(session: onnxruntime.InferenceSession, key: str, kind: type[_Said]) -> _Said | None:
    """What a file says of itself under a key; None where it says nothing. Raises ModelError."""
    said = session.get_modelmeta().custom_metadata_map.get(key)
    try:
        return None if said is None else msgspec.json.decode(said, type=kind)
    except msgspec.DecodeError as error:
        raise ModelError(f"the ONNX file's {key} cannot be read: {error}") from None


def _column(values: list[Any], kind: str) -> Any:
    if kind in _FLOATS:
        return _cast(np.array(values, dtype=np.float64), kind)
    if None in values:
        raise InvalidInput("a value is missing, where the ONNX file takes no missing value")
    return np.array(values, dtype=_TYPES[kind])


def _cast(numbers: Any, kind: str) -> Any:
    return to_float32(numbers) if kind == "tensor(float)" else np.ascontiguousarray(numbers, dtype=_TYPES[kind])


def _is_column(one: Any, given: Named | Array | Text) -> bool:
    """Whether an input is the one feature of instances that have one."""
    return isinstance(given, Named) and [one.name] == [feature.name for feature in given.features]


def _inner_shape(one: Any) -> list[int]:
    return [1] * (len(one.shape) - 1)


def _convert(estimator: Any, given: Named | Array | Text, *, doubles: bool) -> bytes:
    from onnx.helper import set_model_props
    from skl2onnx import convert_sklearn

    _, last = split_pipeline(estimator)
    options = {id(last): {"zipmap": False}} if is_classifier(last) else None
    types = list(_initial_types(estimator, given, doubles=doubles))
    model = convert_sklearn(estimator, initial_types=types, options=options)
    if len(model.graph.input) != len(types):
        raise ModelError("it leaves features out")
    names = [output.name for output in model.graph.output]
    methods = {"predict" if hasattr(estimator, "predict") else "transform": names[0]}
    if is_classifier(estimator) and hasattr(estimator, "predict_proba") and len(names) > 1:
        methods["predict_proba"] = names[1]
    said = {_METHODS: methods, _FEATURES: [name for name, _ in types]}
    set_model_props(model, {key: msgspec.json.encode(value).decode() for key, value in said.items()})
    file: bytes = model.SerializeToString()
    return file


def _initial_types(estimator: Any, given: Named | Array | Text, *, doubles: bool) -> Iterator[tuple[str, Any]]:
    from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType, Int64TensorType, StringTensorType

    floats = DoubleTensorType if doubles else FloatTensorType

    def type_of(feature: Feature) -> Any:
        if feature.kind == "integer" and not feature.nullable:
            return Int64TensorType
        return floats if feature.kind in {"number", "integer", "boolean"} else StringTensorType

    match given:
        case Text():
            yield "texts", StringTensorType([None, 1])
        case Array(shape=shape, kind=kind):
            tensor = StringTensorType if kind in {"string", "category"} else floats
            yield "rows", tensor([None, *shape])
        case Named(features=features):
            if make_number_stacker(given) is not None and not any(
                isinstance(part, ColumnTransformer) for part in iter_estimators(estimator)
            ):
                yield "rows", floats([None, len(features)])
                return
            for feature in features:
                yield feature.name, type_of(feature)([None, 1])


def _short(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0][:120]}"
