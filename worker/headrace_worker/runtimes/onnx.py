"""The runtime for ONNX Runtime: it executes an ONNX file, or an estimator converted to one by skl2onnx.

A converted estimator computes with 64-bit floats as scikit-learn does if skl2onnx supports that, and otherwise
with 32-bit floats. Methods that the ONNX file does not have are executed by scikit-learn.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, ClassVar, Self, TypeVar

import msgspec
import numpy as np
import onnxruntime
from sklearn.tree import BaseDecisionTree

from headrace.catalog.contract import Array, Named, Tokens
from headrace.errors import ModelError
from headrace.wire.message import Instance
from headrace.wire.stored import DECODE_ERRORS
from headrace_worker.runtimes import InputSchema, VerifiedVersion
from headrace_worker.runtimes.estimator_tree import iter_estimators
from headrace_worker.runtimes.onnx_conversion import FEATURES_KEY, METHODS_KEY, convert
from headrace_worker.runtimes.onnx_inputs import make_feeder
from headrace_worker.runtimes.predictions import to_predictions
from headrace_worker.runtimes.sklearn import SklearnRuntime

_Metadata = TypeVar("_Metadata")


class OnnxRuntime:
    """A runtime around a session, and around an estimator for methods that the session does not have."""

    libraries: ClassVar[tuple[str, ...]] = ("onnxruntime", "skl2onnx")

    def __init__(
        self,
        session: onnxruntime.InferenceSession,
        input_schema: InputSchema,
        other_methods: SklearnRuntime | None = None,
    ) -> None:
        self._session, self._input_schema, self._other_methods = session, input_schema, other_methods
        self._features = _read_metadata(session, FEATURES_KEY, list[str])
        self._feed = make_feeder(session, input_schema, self._features)
        #: The session's outputs, by the method each belongs to; the default method first.
        self.methods = find_method_outputs(session)

    @classmethod
    def explain_rejection(cls, estimator: Any, input_schema: InputSchema) -> str:
        """Return the reason if it is certain that skl2onnx cannot convert the estimator."""
        if estimator is None:
            return "it executes ONNX files and estimators"
        if isinstance(input_schema, Array) and len(input_schema.shape) != 1:
            return "skl2onnx converts estimators of flat rows only"
        if isinstance(input_schema, Tokens):
            return "ONNX has no lists of any length"
        if isinstance(input_schema, Named) and any(feature.optional for feature in input_schema.features):
            return "ONNX has a value for each feature, and rows may lack some"
        if isinstance(input_schema, Named) and any(
            feature.kind in {"datetime", "date"} for feature in input_schema.features
        ):
            return "ONNX has no datetimes"
        return ""

    @classmethod
    def compile(cls, estimator: Any, input_schema: InputSchema) -> bytes:
        """Convert the estimator to an ONNX file. Raises ModelError if skl2onnx cannot convert it."""
        # scikit-learn's trees compare in 32 bits. With 64 bits, rows near a threshold would take another branch.
        has_trees = any(isinstance(inner, BaseDecisionTree) for inner in iter_estimators(estimator))
        first_error = ""
        for doubles in (False,) if has_trees else (True, False):
            try:
                file = convert(estimator, input_schema, doubles=doubles)
                open_session(file, "skl2onnx's result")
            except Exception as error:  # noqa: BLE001  # a converter may raise any error
                first_error = first_error or _shorten(error)
            else:
                return file
        raise ModelError(f"skl2onnx cannot convert it: {first_error}")

    @classmethod
    def load(cls, version: VerifiedVersion) -> Self:
        """Open a session for a version. Raises ModelError."""
        manifest = version.manifest
        session = open_session(version.compiled or version.artifact, manifest.title)
        input_schema = manifest.contract.input
        other_methods = None
        if set(manifest.methods) - set(find_method_outputs(session)):
            other_methods = SklearnRuntime(version.estimator(), input_schema, own=True)
        return cls(session, input_schema, other_methods)

    def predict(self, method: str, instances: Sequence[Instance]) -> list[Any]:
        """Return a prediction for each instance. Raises ONNX Runtime's errors, InvalidInput and ModelError."""
        if method not in self.methods:
            if self._other_methods is None:
                raise ModelError(f"the ONNX file has no {method}; it has {', '.join(self.methods)}")
            return self._other_methods.predict(method, instances)
        return to_predictions(self._run(method, self._feed(instances), len(instances)), len(instances))

    def predict_table(self, method: str, batch: Any) -> Any:
        """Return an array of predictions for checked columns; None if the session takes instances only."""
        from headrace_worker.runtimes.prediction_column import to_prediction_column

        if method not in self.methods and self._other_methods is not None:
            return self._other_methods.predict_table(method, batch)
        if method not in self.methods or self._feed_table is None:
            return None
        output = self._run(method, self._feed_table(batch), batch.num_rows)
        return to_prediction_column(output, batch.num_rows)

    @cached_property
    def _feed_table(self) -> Callable[[Any], dict[str, Any]] | None:
        # Only those who predict tables have pyarrow.
        from headrace_worker.runtimes.onnx_table import make_table_feeder

        return make_table_feeder(self._session, self._input_schema, self._features)

    def _run(self, method: str, inputs: dict[str, Any], rows: int) -> Any:
        (output,) = self._session.run([self.methods[method]], inputs)
        if isinstance(output, list):  # a dict of each class's probability for each instance
            output = np.array([[row[name] for name in sorted(row)] for row in output])
        return output[:, 0] if output.shape == (rows, 1) and method != "transform" else output


def open_session(data: bytes, title: str) -> onnxruntime.InferenceSession:
    """Open a session with one thread: further threads would not survive a fork, and a call would wait for them.

    Raises ModelError for bytes that are not an ONNX model.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 4
    try:
        return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise ModelError(f"{title} is no model ONNX Runtime can run: {_shorten(error)}") from error


def refuse_external_tensors(data: bytes, title: str) -> None:
    """Raise ModelError for a model with tensors in other files.

    Such a model could name any file of the machine that loads it.
    """
    import onnx

    try:
        pending: list[Any] = [onnx.load_from_string(data).graph]
    except Exception as error:
        raise ModelError(f"{title} is no ONNX file: {_shorten(error)}") from error
    while pending:
        graph = pending.pop()
        attributes = [attribute for node in graph.node for attribute in node.attribute]
        sparse = [dense for tensor in graph.sparse_initializer for dense in (tensor.values, tensor.indices)]
        tensors = [*graph.initializer, *sparse]
        for attribute in attributes:
            tensors += [attribute.t, *attribute.tensors]
            pending += [*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs]
        if any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in tensors):
            raise ModelError(f"{title} keeps tensors in other files; save it as one (`onnx.save_model` does)")


def read_class_labels(data: bytes) -> Any:
    """Return the labels of a file's ZipMap in the order of the probabilities; None without a ZipMap."""
    import onnx

    nodes = [node for node in onnx.load_from_string(data).graph.node if node.op_type == "ZipMap"]
    if len(nodes) != 1:
        return None
    attributes = {attribute.name: attribute for attribute in nodes[0].attribute}
    if "classlabels_strings" in attributes:
        return np.array(sorted(label.decode() for label in attributes["classlabels_strings"].strings))
    return np.array(sorted(attributes["classlabels_int64s"].ints))


def find_method_outputs(session: onnxruntime.InferenceSession) -> dict[str, str]:
    """Return the name of the output for each method, the default method first.

    A file converted by Headrace names them. In other files the first output is `predict`, the first further one
    named `...proba...` is `predict_proba`, and any other is a method of its own name.
    """
    outputs = _read_metadata(session, METHODS_KEY, dict[str, str])
    names = [output.name for output in session.get_outputs()]
    if outputs is not None:
        return {method: name for method, name in outputs.items() if name in names}
    methods = {"predict": names[0]}
    for name in names[1:]:
        is_first = "proba" in name and "predict_proba" not in methods
        methods["predict_proba" if is_first else name] = name
    return methods


def _read_metadata(session: onnxruntime.InferenceSession, key: str, kind: type[_Metadata]) -> _Metadata | None:
    """Return a file's metadata under a key; None if there is none. Raises ModelError."""
    value = session.get_modelmeta().custom_metadata_map.get(key)
    try:
        return None if value is None else msgspec.json.decode(value, type=kind)
    except DECODE_ERRORS as error:
        raise ModelError(f"the ONNX file's {key} cannot be read: {error}") from None


def _shorten(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0][:120]}"
