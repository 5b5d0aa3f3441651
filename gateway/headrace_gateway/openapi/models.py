"""The operations that describe models, and the API itself."""

from __future__ import annotations

from collections.abc import Sequence

from headrace_gateway.openapi.build import Spec, answer, operation, parameter, ref

_IF_NONE_MATCH = parameter("If-None-Match", "header", "The ETag of an earlier answer.", {"type": "string"})
_ETAG: Spec = {"ETag": {"description": "The tag of this document.", "schema": {"type": "string"}}}


def model_parameter(models: Sequence[str]) -> Spec:
    """Return the parameter in the path that names one of these models."""
    return parameter(
        "model",
        "path",
        "The name of a model. A version or an alias may follow it: `churn@7`, `churn@canary`.",
        {"type": "string", **({"enum": list(models)} if models else {})},
    )


def paths(models: Sequence[str]) -> Spec:
    """Return the paths that describe these models."""
    documents: Spec = {
        "/v1/models": {"get": _list_models()},
        "/openapi.json": {"get": _describe("describeApi", "Describe the API", [], [])},
    }
    if not models:
        return documents
    named, version = model_parameter(models), version_parameter()
    description = "Its contract, methods, versions, aliases and queue; `ready` is true if a worker has it loaded."
    return {
        **documents,
        "/v1/models/{model}": {
            "get": operation(
                "getModel",
                "Describe a model",
                description,
                tag="models",
                parameters=[named],
                answers={200: answer("The model.", ref("Model"))},
                problems=["unknown-model", "invalid-input"],
            )
        },
        "/v1/models/{model}/versions/{version}": {
            "get": operation(
                "getModelVersion",
                "Describe a version of a model",
                description,
                tag="models",
                parameters=[named, version],
                answers={200: answer("The model.", ref("Model"))},
                problems=["unknown-model", "invalid-input"],
            )
        },
        "/v1/models/{model}/openapi.json": {
            "get": _describe(
                "describeModel", "Describe a model as OpenAPI", [named], ["unknown-model", "invalid-input"]
            )
        },
    }


def version_parameter() -> Spec:
    """Return the parameter in the path that names a version."""
    return parameter(
        "version",
        "path",
        "A version of the model, or an alias.",
        {"type": "string", "pattern": "^[a-z0-9_-]{1,64}$"},
    )


def _list_models() -> Spec:
    return operation(
        "listModels",
        "List the models",
        "The names of the models that you may use.",
        tag="models",
        answers={200: answer("The names.", ref("Models"))},
    )


def _describe(name: str, summary: str, parameters: Sequence[Spec], problems: Sequence[str]) -> Spec:
    return operation(
        name,
        summary,
        "An OpenAPI 3.1 document, with the types of each model.",
        tag="models",
        parameters=[*parameters, _IF_NONE_MATCH],
        answers={
            200: answer("The document.", {"type": "object"}, headers=_ETAG),
            304: answer("Nothing has changed.", headers=_ETAG),
        },
        problems=problems,
    )
