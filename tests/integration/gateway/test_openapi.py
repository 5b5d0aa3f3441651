"""The OpenAPI document of a running gateway: its examples work, and it follows the models and the caller."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import msgspec
import pytest
import redis

from headrace.catalog.contract import Contract, Feature, Named, Output
from headrace.catalog.published import publish_contract
from headrace.wire.keys import Keys
from tests.support.command import headrace
from tests.support.gateway import RunningGateway, running_gateway
from tests.support.served_worker import Site
from tests.support.waiting import wait_until

NEW = Contract(
    model="fresh",
    version="1",
    input=Named(features=(Feature(name="age", kind="number"),)),
    methods={"predict": Output(shape=())},
)


@pytest.fixture(scope="module")
def keyed(shared: Site) -> Iterator[RunningGateway]:
    """A gateway that asks for keys and reads contracts anew for each document."""
    settings = {"HEADRACE_GATEWAY_OPEN": "false", "HEADRACE_CONTRACT_TTL": "0.05"}
    with running_gateway(shared.url, shared.folder, name="keyed", **settings) as gateway:
        yield gateway


def key_of(site: Site, name: str, *limits: str) -> dict[str, str]:
    """Register a caller, and return the header with its key."""
    ran = headrace("keys", "add", name, *limits, HEADRACE_REDIS_URL=site.url)
    assert ran.returncode == 0, ran.stderr
    return {"Authorization": f"Bearer {ran.stdout.strip()}"}


@pytest.mark.parametrize("face", ["/v1/models/{}:predict", "/v1/models/{}/jobs"])
def test_the_example_of_each_model_is_accepted(http: httpx.Client, face: str):
    document = http.get("/openapi.json").json()
    models = http.get("/v1/models").json()["models"]
    assert "churn" in models
    for model in models:
        path = face.format(model)
        content = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]
        answer = http.post(path, json=content["examples"]["one"]["value"])
        assert answer.is_success, (path, answer.text)


def test_the_examples_of_the_other_protocols_are_accepted(http: httpx.Client):
    paths = http.get("/openapi.json").json()["paths"]
    for path in ("/v2/models/{model}/infer", "/models/{model}/invocations"):
        examples = paths[path]["post"]["requestBody"]["content"]["application/json"]["examples"]
        assert "tumour" in examples
        for model, example in examples.items():
            answer = http.post(path.format(model=model), json=example["value"])
            assert answer.status_code == 200, (path, model, answer.text)


def test_an_example_has_typical_values_of_the_data_of_the_model(http: httpx.Client):
    document = http.get("/openapi.json").json()
    (instance,) = document["components"]["schemas"]["churn.1.Instance"]["examples"]
    assert isinstance(instance["age"], int | float)
    assert instance["plan"] in {"basic", "silver", "gold"}


def test_a_document_that_has_not_changed_is_304(http: httpx.Client):
    for path in ("/openapi.json", "/v1/models/churn/openapi.json"):
        first = http.get(path)
        assert first.headers["content-type"] == "application/json"
        again = http.get(path, headers={"If-None-Match": first.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")


def test_the_document_of_a_model_is_that_of_the_version_in_the_path(http: httpx.Client):
    document = http.get("/v1/models/churn@1/openapi.json").json()
    assert document["info"]["title"] == "churn, version 1"
    path = "/v1/models/churn@1:predict"
    example = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]["examples"]["one"]
    assert http.post(path, json=example["value"]).status_code == 200


def test_the_document_of_a_model_that_nobody_published_is_404(http: httpx.Client):
    answer = http.get("/v1/models/churned/openapi.json")
    assert (answer.status_code, answer.json()["type"]) == (404, "/docs/problems/unknown-model")


def test_a_new_model_changes_the_document_and_its_tag(keyed: RunningGateway, shared: Site):
    with keyed.client(headers=key_of(shared, "watcher")) as http, redis.Redis.from_url(shared.url) as server:
        before = http.get("/openapi.json")
        assert "/v1/models/fresh:predict" not in before.json()["paths"]
        publish_contract(server, Keys(), NEW)
        try:
            wait_until(lambda: "/v1/models/fresh:predict" in http.get("/openapi.json").json()["paths"])
            assert http.get("/openapi.json").headers["etag"] != before.headers["etag"]
            renewed = msgspec.structs.replace(NEW, version="2")
            publish_contract(server, Keys(), renewed)
            wait_until(lambda: "fresh.2.Request" in http.get("/openapi.json").json()["components"]["schemas"])
        finally:
            server.delete(Keys().contracts("fresh"))
            server.srem(Keys().models, "fresh")


def test_a_caller_sees_its_own_models_only(keyed: RunningGateway, shared: Site):
    with keyed.client(headers=key_of(shared, "clerk", "--models", "churn")) as http:
        document = http.get("/openapi.json").json()
        assert not any("doubling" in path for path in document["paths"])
        assert "doubling" not in str(document)
        assert document["security"] == [{"key": []}]
        assert http.get("/v1/models/doubling/openapi.json").status_code == 403


def test_without_a_key_there_is_no_document_but_there_are_pages(keyed: RunningGateway):
    with keyed.client() as http:
        assert http.get("/openapi.json").status_code == 401
        for path in ("/docs", "/docs/page.js", "/docs/page.css", "/docs/problems", "/docs/problems/unauthorized"):
            answer = http.get(path)
            assert answer.status_code == 200
            assert "default-src 'none'" in answer.headers["content-security-policy"]
            assert "unsafe" not in answer.headers["content-security-policy"]


def test_the_type_of_a_problem_leads_to_its_page(http: httpx.Client):
    problem = http.post("/v1/models/churn:predict", json={"instances": [{"age": "41"}]}).json()
    page = http.get(problem["type"])
    assert page.status_code == 200
    assert problem["title"].replace("'", "&#x27;") in page.text


def test_a_type_that_does_not_exist_is_404(http: httpx.Client):
    assert http.get("/docs/problems/no-such-type").status_code == 404
