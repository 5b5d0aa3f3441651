"""The metadata of a model, made from its contract. Nobody has to write it."""

from __future__ import annotations

from typing import Any

from headrace.catalog.contract import Array, Contract, Feature, Kind, Named, Text, Tokens
from headrace.version import __version__
from headrace_gateway.open_inference.outputs import output_datatype

#: What the server is, and what of the protocol's extensions it has.
SERVER = {"name": "headrace", "version": __version__, "extensions": ["binary_tensor_data", "parameters"]}

_DATATYPES: dict[Kind, str] = {
    "number": "FP64",
    "integer": "INT64",
    "boolean": "BOOL",
    "string": "BYTES",
    "category": "BYTES",
    "datetime": "BYTES",
    "date": "BYTES",
}


def describe_model(contract: Contract, versions: list[str] | None = None) -> dict[str, Any]:
    """Return the metadata of a version: its inputs and outputs. -1 is the number of instances."""
    return {
        "name": contract.model,
        "versions": versions or [contract.version],
        "platform": "headrace",
        "inputs": _describe_inputs(contract),
        "outputs": [
            {"name": method, "datatype": output_datatype(output), "shape": [-1, *output.shape]}
            | ({"parameters": {"classes": output.classes}} if output.classes is not None else {})
            for method, output in contract.methods.items()
        ],
    }


def _describe_inputs(contract: Contract) -> list[dict[str, Any]]:
    match contract.input:
        case Named(features=features):
            return [_describe_feature(feature) for feature in features]
        case Array() as array:
            document: dict[str, Any] = {
                "name": "instances",
                "datatype": _DATATYPES[array.kind],
                "shape": [-1, *array.shape],
            }
            return [document | ({"parameters": {"nullable": True}} if array.nullable else {})]
        case Text():
            return [{"name": "texts", "datatype": "BYTES", "shape": [-1]}]
        case Tokens():
            return [{"name": "tokens", "datatype": "BYTES", "shape": [-1, -1]}]


def _describe_feature(feature: Feature) -> dict[str, Any]:
    datatype, parameters = _DATATYPES[feature.kind], _describe_values(feature)
    if feature.categories is not None and all(type(category) is int for category in feature.categories):
        datatype = "INT64"
    document: dict[str, Any] = {"name": feature.name, "datatype": datatype, "shape": [-1]}
    return document | ({"parameters": parameters} if parameters else {})


def _describe_values(feature: Feature) -> dict[str, Any]:
    parameters: dict[str, Any] = {}
    if feature.kind not in {"number", "boolean", "string"}:
        parameters["kind"] = feature.kind
    if feature.nullable:
        parameters["nullable"] = True
    if feature.optional:
        parameters["optional"] = True
    if feature.categories is not None:
        parameters["categories"] = feature.categories
    return parameters


def describe_config(contract: Contract) -> dict[str, Any]:
    """Return the configuration of a version in the form of Triton's, without what only a Triton server has."""
    described = describe_model(contract)
    return {
        "name": contract.model,
        "platform": "headrace",
        "backend": "headrace",
        "max_batch_size": 0,
        "input": [_describe_tensor(document) for document in described["inputs"]],
        "output": [_describe_tensor(document) for document in described["outputs"]],
    }


def _describe_tensor(document: dict[str, Any]) -> dict[str, Any]:
    datatype = "STRING" if document["datatype"] == "BYTES" else document["datatype"]
    return {"name": document["name"], "data_type": f"TYPE_{datatype}", "dims": document["shape"]}
