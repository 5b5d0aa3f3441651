"""The OpenAPI document describes every route, and nothing in it contradicts itself."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from prometheus_client import CollectorRegistry
from starlette.routing import Route

from headrace.catalog.contract import Array, Contract, Feature, InputSchema, Named, Output, Text, Tokens
from headrace_gateway.app import create_app
from headrace_gateway.openapi.document import gateway_document, model_document
from headrace_gateway.settings import GatewaySettings

INPUTS: dict[str, InputSchema] = {
    "churn": Named(
        features=(Feature(name="mean age (y)", kind="number"), Feature(name="note", kind="string", optional=True))
    ),
    "grid": Array(shape=(2, 2), nullable=True),
    "image": Array(shape=(64, 64, 3)),
    "texts": Text(),
    "words": Tokens(),
}
METHODS = {"predict": Output(shape=(), classes=(0, 1)), "predict_proba": Output(shape=(2,), classes=(0, 1))}


def contract(model: str) -> Contract:
    return Contract(model=model, version="3", input=INPUTS[model], methods=METHODS)


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return gateway_document(map(contract, INPUTS), server="/", is_open=False)


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, item in document["paths"].items():
        for method, operation in item.items():
            yield method.upper(), path, operation


def references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"]
        for value in node.values():
            yield from references(value)
    elif isinstance(node, list):
        for value in node:
            yield from references(value)


def resolve(document: dict[str, Any], node: dict[str, Any]) -> dict[str, Any]:
    for step in node["$ref"].removeprefix("#/").split("/") if "$ref" in node else ():
        document = document[step]
    return document if "$ref" in node else node


def validator(document: dict[str, Any], schema: dict[str, Any]) -> Draft202012Validator:
    """Return the validator of a schema whose references lead to the document's components."""
    return Draft202012Validator({"allOf": [schema], "components": document["components"]})


def test_every_route_is_described_and_no_other_path():
    app = create_app(GatewaySettings(gateway_open=True), registry=CollectorRegistry())
    served = {
        (method, re.sub(r":\w+}", "}", route.path))
        for route in app.routes
        if isinstance(route, Route) and route.path != "/" and not route.path.startswith("/docs")
        for method in (route.methods or set()) - {"HEAD"}
    }
    described = {
        (method, re.sub(r"/churn(?=[:/]|$)", "/{model}", path).replace("/versions/3", "/versions/{version}"))
        for method, path, _ in operations(gateway_document([contract("churn")], server="/", is_open=True))
    }
    assert described == served


def test_every_operation_has_a_name_of_its_own_a_summary_a_description_and_answers(document: dict[str, Any]):
    names = [operation["operationId"] for _, _, operation in operations(document)]
    assert len(names) == len(set(names))
    incomplete = [
        f"{method} {path}"
        for method, path, operation in operations(document)
        if not (operation["summary"] and operation["description"].endswith(".") and operation["tags"])
        or not any(status.startswith("2") for status in operation["responses"])
        or not all(response["description"] for response in operation["responses"].values())
    ]
    assert incomplete == []


def test_every_parameter_of_a_path_is_described(document: dict[str, Any]):
    for method, path, operation in operations(document):
        described = {node["name"] for node in operation.get("parameters", ()) if node["in"] == "path"}
        assert described == set(re.findall(r"{(\w+)}", path)), f"{method} {path}"


def test_every_reference_leads_somewhere(document: dict[str, Any]):
    for reference in set(references(document)):
        assert resolve(document, {"$ref": reference})


def test_every_schema_is_valid_and_every_example_fits_its_schema(document: dict[str, Any]):
    checked = 0
    for method, path, operation in operations(document):
        bodies = [operation.get("requestBody", {}), *operation["responses"].values()]
        for body in bodies:
            for content in body.get("content", {}).values():
                Draft202012Validator.check_schema(content["schema"])
                for example in content.get("examples", {}).values():
                    value = resolve(document, example)["value"]
                    errors = list(validator(document, content["schema"]).iter_errors(value))
                    assert errors == [], f"{method} {path}"
                    checked += 1
    for schema in document["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)
    assert checked > 100


def test_a_body_is_typed_by_the_contract(document: dict[str, Any]):
    request = validator(document, {"$ref": "#/components/schemas/churn.3.Request"})
    assert request.is_valid({"instances": [{"mean age (y)": 41}], "parameters": {"method": "predict_proba"}})
    assert not request.is_valid({"instances": []})
    assert not request.is_valid({"instances": [{"mean age (y)": "41"}]})
    assert not request.is_valid({"instances": [{"mean age (y)": 41}], "parameters": {"method": "transform"}})
    assert not request.is_valid({"instances": [{"mean age (y)": 41}], "unknown": 1})


def test_a_job_without_an_outcome_leads_to_the_operations_of_jobs(document: dict[str, Any]):
    names = {operation["operationId"] for _, _, operation in operations(document)}
    links = document["paths"]["/v1/models/churn/jobs"]["post"]["responses"]["202"]["links"]
    assert {link["operationId"] for link in links.values()} <= names
    assert "getJob" in links


def test_a_key_is_asked_for_unless_the_gateway_is_open(document: dict[str, Any]):
    assert document["security"] == [{"key": []}]
    assert document["components"]["securitySchemes"]["key"]["scheme"] == "bearer"
    assert "security" not in gateway_document([], server="/", is_open=True)


def test_a_gateway_without_models_describes_its_other_routes():
    document = gateway_document([], server="/", is_open=True)
    assert "/v1/models" in document["paths"]
    assert not any("{model}" in path for path in document["paths"])


def test_the_document_of_a_version_has_its_paths_only():
    document = model_document(contract("churn"), "churn@3", server="/", is_open=True)
    assert list(document["paths"]) == ["/v1/models/churn@3:predict", "/v1/models/churn@3/jobs"]
    assert all(resolve(document, {"$ref": reference}) for reference in references(document))
