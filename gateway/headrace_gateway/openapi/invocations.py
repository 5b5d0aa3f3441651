"""The operations of MLflow's scoring server and SageMaker's containers."""

from __future__ import annotations

from collections.abc import Sequence

from headrace.catalog.contract import Contract, Named
from headrace_gateway.openapi.build import Spec, answer, json_content, operation
from headrace_gateway.openapi.model_schemas import example_instance
from headrace_gateway.openapi.models import model_parameter
from headrace_gateway.openapi.native import OUTCOME_PROBLEMS, SUBMIT_PROBLEMS

TAG = "MLflow and SageMaker"
_FORMS = ("dataframe_split", "dataframe_records", "instances", "inputs")
_BODY: Spec = {
    "type": "object",
    "properties": {
        "dataframe_split": {
            "type": "object",
            "properties": {
                "columns": {"type": ["array", "null"], "items": {"type": ["string", "integer"]}},
                "index": {},
                "data": {"type": "array", "items": {"type": "array"}},
            },
            "required": ["data"],
            "additionalProperties": False,
        },
        "dataframe_records": {"type": "array", "items": {"type": "object"}},
        "instances": {"type": "array"},
        "inputs": {},
        "params": {"type": ["object", "null"]},
    },
    "oneOf": [{"required": [form]} for form in _FORMS],
    "additionalProperties": False,
}
_PREDICTIONS: Spec = {
    "type": "object",
    "properties": {"predictions": {"type": "array"}},
    "required": ["predictions"],
}
_CSV: Spec = {"text/csv": {"schema": {"type": "string"}}}


def paths(contracts: Sequence[Contract]) -> Spec:
    """Return the paths of the protocol, for the models of these contracts."""
    examples = {contract.model: body for contract in contracts if (body := _example(contract)) is not None}
    public: Spec = {
        "/invocations": {"post": _invoke("invokeOnly", [], examples)},
        "/ping": {"get": _ping("pingServer", [], is_public=True)},
    }
    if not contracts:
        return public
    named = model_parameter([contract.model for contract in contracts])
    return {
        "/models/{model}/invocations": {"post": _invoke("invoke", [named], examples)},
        "/models/{model}/ping": {"get": _ping("pingModel", [named])},
        **public,
    }


def _invoke(name: str, parameters: Sequence[Spec], examples: Spec) -> Spec:
    success = answer("The predictions; as CSV, a line each, for `Accept: text/csv`.", _PREDICTIONS)
    success["content"] |= _CSV
    where = "" if parameters else " Only for a gateway of one model, or with HEADRACE_GATEWAY_MODEL."
    return operation(
        name,
        "Predict a table",
        f"The base URL of a client of MLflow or SageMaker. Send one of MLflow's four forms, or CSV.{where}",
        tag=TAG,
        parameters=parameters,
        body=json_content(_BODY, examples) | _CSV,
        answers={200: success},
        problems=[
            "malformed-body",
            "too-large",
            "unsupported-type",
            *SUBMIT_PROBLEMS,
            *OUTCOME_PROBLEMS,
            "wait-over",
            "shutting-down",
        ],
    )


def _ping(name: str, parameters: Sequence[Spec], *, is_public: bool = False) -> Spec:
    problems = ("unknown-model", "invalid-input") if parameters else ("broker-unavailable",)
    return operation(
        name,
        "Ask whether a model is published" if parameters else "Ask whether Redis answers",
        "200 if so.",
        tag=TAG,
        parameters=parameters,
        answers={200: answer("It is.")},
        problems=problems,
        is_public=is_public,
    )


def _example(contract: Contract) -> Spec | None:
    instance = example_instance(contract)
    if instance is None:
        return None
    form = "dataframe_records" if isinstance(contract.input, Named) else "instances"
    return {form: [instance]}
