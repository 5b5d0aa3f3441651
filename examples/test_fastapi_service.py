"""The test of fastapi_service.py, without Redis and without a worker.

pip install ./producer fastapi httpx pytest
pytest examples/test_fastapi_service.py
"""

from collections.abc import Iterator
from typing import Any

import fastapi_service
import pytest
from fastapi.testclient import TestClient

from headrace.testing import AsyncInMemoryClient

REQUEST = {"model": "churn", "instance": {"age": 41}}


@pytest.fixture
def headrace_models() -> dict[str, Any]:
    """Return the models of the client: a function in the place of the model."""
    return {"churn": lambda instances: [int(instance["age"] > 40) for instance in instances]}


@pytest.fixture
def web(headrace_async_client: AsyncInMemoryClient) -> Iterator[TestClient]:
    app = fastapi_service.app
    app.dependency_overrides[fastapi_service.client_of] = lambda: headrace_async_client
    yield TestClient(app)
    app.dependency_overrides.clear()


def test_a_request_becomes_a_job_with_a_prediction(web: TestClient) -> None:
    response = web.post("/predictions", json=REQUEST)
    assert response.status_code == 202
    assert web.get(response.headers["location"]).json()["prediction"] == 1


def test_a_repeated_request_is_the_same_job(web: TestClient, headrace_async_client: AsyncInMemoryClient) -> None:
    key = {"idempotency-key": "order-4711"}
    answers = [web.post("/predictions", json=REQUEST, headers=key).json() for _ in range(2)]
    assert answers == [{"id": "web-order-4711"}] * 2
    assert [job.id for job in headrace_async_client.submitted] == ["web-order-4711"]


def test_a_key_of_another_request_is_a_conflict(web: TestClient) -> None:
    key = {"idempotency-key": "order-4711"}
    web.post("/predictions", json=REQUEST, headers=key)
    assert web.post("/predictions", json=REQUEST | {"instance": {"age": 4}}, headers=key).status_code == 409


def test_an_unknown_model_is_refused(web: TestClient) -> None:
    response = web.post("/predictions", json=REQUEST | {"model": "chrun"})
    assert (response.status_code, "churn" in response.json()["detail"]) == (422, True)


def test_the_failure_of_a_model_is_shown_without_values(web: TestClient) -> None:
    location = web.post("/predictions", json=REQUEST | {"instance": {"plan": "gold"}}).headers["location"]
    answer = web.get(location).json()
    assert (answer["status"], "KeyError" in answer["error"]) == ("failure", True)
