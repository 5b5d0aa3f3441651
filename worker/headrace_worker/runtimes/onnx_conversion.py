"""Convert an estimator to an ONNX file with skl2onnx."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
from sklearn.base import is_classifier
from sklearn.compose import ColumnTransformer

from headrace.catalog.contract import Array, Feature, Named, Text, Tokens
from headrace.errors import ModelError
from headrace_worker.runtimes import InputSchema
from headrace_worker.runtimes.estimator_tree import iter_estimators, split_pipeline
from headrace_worker.runtimes.input_arrays import make_number_stacker

#: The metadata keys of a converted file: the output of each method, and the feature of each input in their order,
#: because skl2onnx changes the names.
METHODS_KEY, FEATURES_KEY = "headrace.methods", "headrace.features"


def convert(estimator: Any, input_schema: InputSchema, *, doubles: bool) -> bytes:
    """Return an ONNX file that computes with 64-bit floats (`doubles`) or 32-bit floats.

    Raises ModelError and any error of skl2onnx.
    """
    from onnx.helper import set_model_props
    from skl2onnx import convert_sklearn

    _, last = split_pipeline(estimator)
    options = {id(last): {"zipmap": False}} if is_classifier(last) else None
    types = list(_initial_types(estimator, input_schema, doubles=doubles))
    model = convert_sklearn(estimator, initial_types=types, options=options)
    if len(model.graph.input) != len(types):
        raise ModelError("it leaves features out")
    outputs = [output.name for output in model.graph.output]
    methods = {"predict" if hasattr(estimator, "predict") else "transform": outputs[0]}
    if is_classifier(estimator) and hasattr(estimator, "predict_proba") and len(outputs) > 1:
        methods["predict_proba"] = outputs[1]
    metadata = {METHODS_KEY: methods, FEATURES_KEY: [name for name, _ in types]}
    set_model_props(model, {key: msgspec.json.encode(value).decode() for key, value in metadata.items()})
    file: bytes = model.SerializeToString()
    return file


def _initial_types(estimator: Any, input_schema: InputSchema, *, doubles: bool) -> Iterator[tuple[str, Any]]:
    """Yield the name and tensor type of each input."""
    from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType, Int64TensorType, StringTensorType

    float_type = DoubleTensorType if doubles else FloatTensorType

    def type_of(feature: Feature) -> Any:
        if feature.kind == "integer" and not feature.nullable:
            return Int64TensorType
        return float_type if feature.kind in {"number", "integer", "boolean"} else StringTensorType

    match input_schema:
        case Tokens():
            raise ModelError("ONNX has no lists of any length")
        case Text():
            yield "texts", StringTensorType([None, 1])
        case Array(shape=shape, kind=kind):
            tensor_type = StringTensorType if kind in {"string", "category"} else float_type
            yield "rows", tensor_type([None, *shape])
        case Named(features=features):
            selects_columns = any(isinstance(inner, ColumnTransformer) for inner in iter_estimators(estimator))
            if make_number_stacker(input_schema) is not None and not selects_columns:
                yield "rows", float_type([None, len(features)])
                return
            for feature in features:
                yield feature.name, type_of(feature)([None, 1])
