"""JSON schemas of the instances and predictions of a model, made from its contract."""

from __future__ import annotations

from typing import Any

from headrace.catalog.contract import Array, Contract, Feature, InputSchema, Kind, Named, Output, Text, Tokens
from headrace.catalog.datetimes import PLAIN_DATETIME
from headrace.catalog.typical import typical_instance

#: A JSON schema, or a part of one.
Schema = dict[str, Any]

#: The methods whose predictions are numbers, whatever the model.
_NUMERIC_METHODS = frozenset({"predict_proba", "predict_log_proba", "decision_function"})

_SCHEMAS: dict[Kind, Schema] = {
    "number": {"type": "number"},
    "integer": {"type": "integer"},
    "boolean": {"type": "boolean"},
    "string": {"type": "string"},
    "category": {"type": ["string", "number", "boolean"]},
    "datetime": {"type": "string", "format": "date-time"},
    "date": {"type": "string", "format": "date"},
}
#: A datetime without a zone, which `date-time` would demand. `$` is ECMA's form of Python's end of a text.
_LOCAL_DATETIME: Schema = {"type": "string", "pattern": PLAIN_DATETIME.replace(r"\Z", "$")}


def instance_schema(schema: InputSchema) -> Schema:
    """Return the JSON schema of an instance. The check of instances accepts what it accepts, and little more."""
    match schema:
        case Named(features=features):
            return {
                "type": "object",
                "properties": {feature.name: _feature_schema(feature) for feature in features},
                "required": [feature.name for feature in features if not feature.optional],
                "additionalProperties": False,
            }
        case Array(shape=shape, kind=kind, nullable=nullable):
            values = _nullable(_SCHEMAS[kind]) if nullable else _SCHEMAS[kind]
            for length in reversed(shape):
                values = {"type": "array", "items": values, "minItems": length, "maxItems": length}
            return values
        case Text():
            return {"type": "string"}
        case Tokens():
            return {"type": "array", "items": {"type": "string"}}


def example_instance(contract: Contract) -> Any:
    """Return an instance that fits: with typical values, if the version has them; None if it would be too long."""
    return typical_instance(contract.input) if contract.example is None else contract.example


def predictions_schema(contract: Contract) -> Schema:
    """Return the JSON schema of the predictions of one job, of any method."""
    schemas: list[Schema] = []
    for method, output in contract.methods.items():
        schema = {"title": method, **prediction_schema(method, output)}
        if schema not in schemas:
            schemas.append(schema)
    return {"type": "array", "items": schemas[0] if len(schemas) == 1 else {"anyOf": schemas}}


def prediction_schema(method: str, output: Output) -> Schema:
    """Return the JSON schema of one prediction of a method. NaN and infinity are null."""
    if output.classes is not None and not output.shape:
        return {"enum": list(output.classes)}
    is_numeric = method in _NUMERIC_METHODS or output.column_classes is not None
    values: Schema = {"type": ["number", "null"]} if is_numeric else {}
    if output.column_classes is not None:
        length = len(output.column_classes)
        titles = ", ".join(str(label) for label in output.column_classes[:12])
        return {
            "type": "array",
            "items": values,
            "minItems": length,
            "maxItems": length,
            "description": f"A value for each class, in this order: {titles}{', ...' if length > 12 else ''}.",
        }
    # The lengths are those of the example, and another instance may have others.
    for _ in output.shape:
        values = {"type": "array", "items": values}
    return values


def _feature_schema(feature: Feature) -> Schema:
    if feature.kind == "category" and feature.categories is not None:
        values = [*feature.categories, None] if feature.nullable else list(feature.categories)
        return {"enum": values}
    is_local = feature.kind == "datetime" and not feature.has_zone
    schema = _LOCAL_DATETIME if is_local else _SCHEMAS[feature.kind]
    return _nullable(schema) if feature.nullable else schema


def _nullable(schema: Schema) -> Schema:
    kinds = schema["type"]
    return {**schema, "type": [*([kinds] if isinstance(kinds, str) else kinds), "null"]}
