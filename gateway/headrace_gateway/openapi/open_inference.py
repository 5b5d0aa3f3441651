"""The operations of Open Inference v2."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from headrace.catalog.contract import Contract, Named
from headrace_gateway.open_inference.metadata import describe_model
from headrace_gateway.openapi.build import Spec, answer, json_content, operation, parameter
from headrace_gateway.openapi.model_schemas import example_instance
from headrace_gateway.openapi.models import model_parameter, version_parameter
from headrace_gateway.openapi.native import OUTCOME_PROBLEMS, SUBMIT_PROBLEMS

TAG = "Open Inference v2"
#: Errors are JSON without a type of their own, because the clients of the protocol read no other.
_MEDIA = "application/json"
_BODY_PROBLEMS = ("malformed-body", "too-large")
_OBJECT: Spec = {"type": "object"}
_READY: Spec = {"type": "object", "properties": {"ready": {"type": "boolean"}}, "required": ["ready"]}
_TENSOR: Spec = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "shape": {"type": "array", "items": {"type": "integer", "minimum": 0}},
        "datatype": {"type": "string", "examples": ["FP64", "INT64", "BOOL", "BYTES"]},
        "parameters": {"type": ["object", "null"]},
        "data": {"description": "The values in row order, nested or flat; absent if they follow as bytes."},
    },
    "required": ["name", "shape", "datatype"],
    "additionalProperties": False,
}
_REQUESTED: Spec = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "parameters": {"type": ["object", "null"]}},
    "required": ["name"],
    "additionalProperties": False,
}
_INFER: Spec = {
    "type": "object",
    "properties": {
        "id": {"type": ["string", "null"]},
        "parameters": {"type": ["object", "null"]},
        "inputs": {"type": "array", "items": _TENSOR, "minItems": 1},
        "outputs": {"type": ["array", "null"], "items": _REQUESTED},
        "model_name": {},
        "model_version": {},
    },
    "required": ["inputs"],
    "additionalProperties": False,
}
_INFERRED: Spec = {
    "type": "object",
    "properties": {
        "model_name": {"type": "string"},
        "model_version": {"type": "string"},
        "id": {"type": "string"},
        "outputs": {"type": "array", "items": {**_TENSOR, "additionalProperties": True}},
    },
    "required": ["model_name", "model_version", "outputs"],
}
_JSON_LENGTH = parameter(
    "Inference-Header-Content-Length",
    "header",
    "The bytes of the JSON part of the body, where the data of tensors follows it.",
    {"type": "string", "pattern": "^[0-9]{1,9}$"},
)


def paths(contracts: Sequence[Contract]) -> Spec:
    """Return the paths of the protocol, for the models of these contracts."""
    server: Spec = {
        "/v2": {"get": _public("readServer", "See what the server is", {200: answer("The server.", _OBJECT)})},
        "/v2/health/live": {"get": _public("readLive", "Ask for a sign of life", {200: _json("It answers.")})},
        "/v2/health/ready": {
            "get": _public(
                "readReady",
                "Ask whether jobs can be submitted",
                {200: answer("They can.", _READY), 503: answer("They cannot.", _READY)},
            )
        },
        "/v2/repository/index": {
            "post": _operation("listRepository", "List the models", _json("The models.", {"type": "array"}))
        },
    }
    if not contracts:
        return server
    named = model_parameter([contract.model for contract in contracts])
    examples = {contract.model: body for contract in contracts if (body := _example(contract)) is not None}
    for suffix, name, parameters in (
        ("", "", [named]),
        ("/versions/{version}", "Version", [named, version_parameter()]),
    ):
        for path, item in _model_paths(name, parameters, examples).items():
            server[f"/v2/models/{{model}}{suffix}{path}"] = item
    return server


def _model_paths(name: str, parameters: Sequence[Spec], examples: Spec) -> Spec:
    def get(operation_name: str, summary: str, description: str) -> Spec:
        problems = ("unknown-model", "invalid-input")
        return {
            "get": _operation(
                f"{operation_name}{name}", summary, _json(description), parameters=parameters, problems=problems
            )
        }

    return {
        "": get("readMetadata", "Describe the tensors of a model", "The inputs and outputs."),
        "/ready": get("readModelReady", "Ask whether a model is published", "It is."),
        "/config": get("readConfig", "Describe a model as Triton does", "The configuration."),
        "/infer": {"post": _infer(f"infer{name}", parameters, examples)},
    }


def _infer(name: str, parameters: Sequence[Spec], examples: Spec) -> Spec:
    binary: Spec = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
    inferred = answer("A tensor for each output.", _INFERRED)
    inferred["content"] |= binary
    return _operation(
        name,
        "Predict tensors",
        inferred,
        parameters=[*parameters, _JSON_LENGTH],
        body=json_content(_INFER, examples) | binary,
        problems=[
            "malformed-body",
            "too-large",
            *SUBMIT_PROBLEMS,
            *OUTCOME_PROBLEMS,
            "wait-over",
            "shutting-down",
        ],
        description="A tensor for each feature of the model, or one of all values; `GET` of the model tells their "
        "names and types. Each output is a method of the model. The data may be JSON, or bytes behind it.",
    )


def _operation(name: str, summary: str, success: Spec, *, description: str = "", **more: Any) -> Spec:
    return operation(
        name, summary, description or f"{summary}.", tag=TAG, answers={200: success}, problem_media=_MEDIA, **more
    )


def _public(name: str, summary: str, answers: dict[int, Spec]) -> Spec:
    return operation(name, summary, f"{summary}. It needs no key.", tag=TAG, answers=answers, is_public=True)


def _json(description: str, schema: Spec = _OBJECT) -> Spec:
    return answer(description, schema)


def _example(contract: Contract) -> Spec | None:
    """Return a request with one instance; None for a model whose example would be too long."""
    instance = example_instance(contract)
    if instance is None:
        return None
    tensors = describe_model(contract)["inputs"]
    if isinstance(contract.input, Named):
        return {
            "inputs": [
                _tensor(tensor, [1], [instance[tensor["name"]]])
                for tensor in tensors
                if tensor["name"] in instance
            ]
        }
    shape = [1, *tensors[0]["shape"][1:]]
    shape = [len(instance) if length == -1 else length for length in shape]
    return {"inputs": [_tensor(tensors[0], shape, [instance])]}


def _tensor(tensor: Spec, shape: Sequence[int], data: Sequence[Any]) -> Spec:
    return {"name": tensor["name"], "shape": list(shape), "datatype": tensor["datatype"], "data": list(data)}
