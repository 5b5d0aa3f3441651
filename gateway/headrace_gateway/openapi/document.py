"""The OpenAPI document of a gateway, or of a version of a model."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from headrace.catalog.contract import Contract
from headrace.version import __version__
from headrace_gateway.openapi import bulk, invocations, models, native, open_inference, streams
from headrace_gateway.openapi.answers import ANSWERS
from headrace_gateway.openapi.build import Spec, component, problem_examples
from headrace_gateway.openapi.model_schemas import example_instance, instance_schema, predictions_schema
from headrace_gateway.openapi.requests import request_schemas

_DESCRIPTION = """\
Predictions of machine learning models, behind a queue.

Every request writes a job, waits for one, or reads one. What was answered with 200, 201 or 202 is stored and not \
lost. Errors are `application/problem+json`; compare their `type`.
"""


def gateway_document(contracts: Iterable[Contract], *, server: str, is_open: bool) -> Spec:
    """Return the document of a gateway with these models. `server` is the URL of the API, or its path.

    `is_open` is True where no key is needed.
    """
    contracts = list(contracts)
    paths: Spec = {}
    for contract in contracts:
        paths |= native.model_paths(contract, contract.model) | streams.model_paths(contract, contract.model)
    paths |= native.job_paths(contracts) | streams.event_paths() | bulk.paths()
    paths |= models.paths([contract.model for contract in contracts])
    paths |= open_inference.paths(contracts)
    paths |= invocations.paths(contracts)
    return _document("Headrace", paths, contracts, server=server, is_open=is_open)


def model_document(contract: Contract, target: str, *, server: str, is_open: bool) -> Spec:
    """Return the document of one version. `target` is the model as the paths name it: `churn`, `churn@7`."""
    title = f"{contract.model}, version {contract.version}"
    return _document(title, native.model_paths(contract, target), [contract], server=server, is_open=is_open)


def _document(title: str, paths: Spec, contracts: list[Contract], *, server: str, is_open: bool) -> Spec:
    _, schemas = msgspec.json.schema_components(ANSWERS, ref_template="#/components/schemas/{name}")
    schemas |= bulk.run_schemas()
    for contract in contracts:
        schemas |= _model_schemas(contract)
    document: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {"title": title, "version": __version__, "description": _DESCRIPTION},
        "servers": [{"url": server}],
        "paths": paths,
        "components": {"schemas": schemas, "examples": problem_examples()},
    }
    if not is_open:
        document["security"] = [{"key": []}]
        document["components"]["securitySchemes"] = {
            "key": {
                "type": "http",
                "scheme": "bearer",
                "description": "An API key, which the operator makes: `Authorization: Bearer hr_...`.",
            }
        }
    return document


def _model_schemas(contract: Contract) -> Spec:
    """Return the components of a model's version: its instances, requests and predictions."""
    name, title = component(contract), f"{contract.model}@{contract.version}"
    example = example_instance(contract)
    instance = {"title": f"An instance of {title}", **instance_schema(contract.input)}
    if example is not None:
        instance["examples"] = [example]
    return {
        f"{name}.Instance": instance,
        f"{name}.Predictions": {
            "title": f"The predictions of {title}",
            "type": "object",
            "properties": {
                "predictions": predictions_schema(contract),
                "model": {"const": contract.model},
                "version": {"type": "string", "description": "The version that predicted."},
                "id": {"type": "string", "description": "The job's id."},
                "classes": {
                    "type": "array",
                    "description": "The classes whose values each prediction has, in order.",
                },
            },
            "required": ["predictions", "model", "version", "id"],
        },
        **request_schemas(contract),
    }
