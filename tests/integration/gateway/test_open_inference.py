"""Open Inference v2, called by tritonclient: health, metadata, and predictions as JSON and as bytes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pandas as pd
import pytest
import redis
import tritonclient.http as triton

from headrace.catalog.contract import Contract, Output, Text
from headrace.catalog.published import publish_contract
from tests.support.gateway import RunningGateway
from tests.support.served_worker import KEYS, Site
from tests.support.tensors import connect, output, tensor, tensors

MIXES = [(True, True), (True, False), (False, True), (False, False)]


@pytest.fixture
def client(gateway: RunningGateway) -> Iterator[triton.InferenceServerClient]:
    yield from connect(gateway.url)


def trained(site: Site, model: str) -> Any:
    """Return the estimator of a demo model, and rows that it was not trained with."""
    return site.demo[model][1]


def test_the_server_is_live_and_ready_and_says_what_it_is(client: triton.InferenceServerClient) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    metadata = client.get_server_metadata()
    assert metadata["name"] == "headrace"
    assert "binary_tensor_data" in metadata["extensions"]


def test_a_published_model_is_ready_and_an_unknown_one_is_not(client: triton.InferenceServerClient) -> None:
    assert client.is_model_ready("churn")
    assert client.is_model_ready("churn", "1")
    assert client.is_model_ready("churn@1")
    assert not client.is_model_ready("churn", "7")
    assert not client.is_model_ready("churned")
    with pytest.raises(triton.InferenceServerException, match="no model 'churned' is published") as error:
        client.get_model_metadata("churned")
    assert error.value.status() == "404"


def test_metadata_comes_from_the_contract(client: triton.InferenceServerClient) -> None:
    metadata = client.get_model_metadata("churn")
    assert {key: metadata[key] for key in ("name", "versions", "platform")} == {
        "name": "churn",
        "versions": ["1"],
        "platform": "headrace",
    }
    assert metadata["inputs"] == [
        {"name": "age", "datatype": "FP64", "shape": [-1], "parameters": {"nullable": True}},
        {"name": "plan", "datatype": "BYTES", "shape": [-1], "parameters": {"nullable": True}},
    ]
    outputs = {output["name"]: output for output in metadata["outputs"]}
    assert outputs["predict"] == {
        "name": "predict",
        "datatype": "INT64",
        "shape": [-1],
        "parameters": {"classes": [0, 1]},
    }
    assert outputs["predict_proba"]["shape"] == [-1, 2]
    digits = client.get_model_metadata("digits", "1")
    assert digits["inputs"] == [{"name": "instances", "datatype": "FP64", "shape": [-1, 8, 8]}]
    config = client.get_model_config("churn")
    assert config["input"][1] == {"name": "plan", "data_type": "TYPE_STRING", "dims": [-1]}


def test_the_repository_index_lists_the_published_models(client: triton.InferenceServerClient) -> None:
    index = {model["name"]: model for model in client.get_model_repository_index()}
    assert {"churn", "digits", "tumour", "doubling"} <= set(index)
    assert index["churn"] == {"name": "churn", "version": "1", "state": "READY", "reason": ""}


@pytest.mark.parametrize(("binary_in", "binary_out"), MIXES)
def test_mixed_columns_with_missing_values_are_predicted_as_by_scikit_learn(
    client: triton.InferenceServerClient, shared: Site, binary_in: bool, binary_out: bool
) -> None:
    estimator, unseen = trained(shared, "churn")
    table = unseen[:60].copy()
    assert table["age"].isna().sum() == 2
    answer = client.infer(
        "churn",
        tensors(table, binary=binary_in),
        outputs=[output("predict_proba", binary=binary_out), output("predict", binary=binary_out)],
    )
    assert np.array_equal(answer.as_numpy("predict_proba"), estimator.predict_proba(table))
    assert np.array_equal(answer.as_numpy("predict"), estimator.predict(table))
    assert answer.get_output("predict_proba")["parameters"]["classes"] == [0, 1]
    assert answer.get_response()["model_version"] == "1"


@pytest.mark.parametrize(("binary_in", "binary_out"), MIXES)
def test_images_and_labels_are_predicted_as_by_scikit_learn(
    client: triton.InferenceServerClient, shared: Site, binary_in: bool, binary_out: bool
) -> None:
    estimator, images = trained(shared, "digits")
    answer = client.infer(
        "digits", [tensor("pixels", images[:5], binary=binary_in)], outputs=[output("predict", binary=binary_out)]
    )
    assert np.array_equal(answer.as_numpy("predict"), estimator.predict(images[:5]))
    patients: pd.DataFrame
    estimator, patients = trained(shared, "tumour")
    answer = client.infer(
        "tumour",
        [tensor("input-0", patients[:5].to_numpy(), binary=binary_in)],
        outputs=[output("predict", binary=binary_out)],
    )
    labels = answer.as_numpy("predict")
    if binary_out:
        labels = np.array([label.decode() for label in labels])
    assert np.array_equal(labels, estimator.predict(patients[:5]))


@pytest.mark.parametrize("datatype", ["FP16", "FP32", "FP64", "INT8", "INT16", "INT32", "INT64"])
@pytest.mark.parametrize("binary", [True, False])
def test_numbers_of_every_width_are_taken(
    client: triton.InferenceServerClient, datatype: str, binary: bool
) -> None:
    dtype = datatype.replace("FP", "float").replace("INT", "int").lower()
    rows = np.array([[-3, 0, 0], [100, 0, 0]], dtype=dtype)
    answer = client.infer("doubling", [tensor("rows", rows, binary=binary)])
    assert answer.as_numpy("predict").tolist() == [-6.0, 200.0]


def test_one_input_a_column_makes_rows_in_the_order_of_the_inputs(client: triton.InferenceServerClient) -> None:
    columns = [tensor(name, [[first], [2.0]]) for name, first in (("c", 7.0), ("b", 0.0), ("a", 0.0))]
    columns[1:] = [tensor(name, np.zeros((2, 1))) for name in "ba"]
    assert client.infer("doubling", columns).as_numpy("predict").tolist() == [14.0, 4.0]


def test_the_id_of_a_request_comes_back_and_else_is_the_jobs(
    client: triton.InferenceServerClient, http: httpx.Client
) -> None:
    rows = [tensor("rows", [[1.0, 0, 0]])]
    assert client.infer("doubling", rows, request_id="order 4711").get_response()["id"] == "order 4711"
    body = {"inputs": [{"name": "rows", "shape": [1, 3], "datatype": "FP64", "data": [1, 0, 0]}]}
    answer = http.post("/v2/models/doubling/infer", json=body)
    assert answer.json()["id"] == answer.headers["headrace-job"]


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_packed_requests_are_unpacked(client: triton.InferenceServerClient, algorithm: str) -> None:
    rows = np.zeros((200, 3))
    rows[:, 0] = range(200)
    answer = client.infer(
        "doubling",
        [tensor("rows", rows)],
        request_compression_algorithm=algorithm,
        response_compression_algorithm=algorithm,
    )
    assert answer.as_numpy("predict").tolist() == [2.0 * number for number in range(200)]


def test_a_repeat_with_an_idempotency_key_is_the_same_jobs(
    client: triton.InferenceServerClient, http: httpx.Client
) -> None:
    inputs = [
        {"name": "age", "shape": [1], "datatype": "FP64", "data": [70]},
        {"name": "plan", "shape": [1], "datatype": "BYTES", "data": ["basic"]},
    ]
    body = {"inputs": inputs, "outputs": [{"name": "predict"}, {"name": "predict_proba"}]}
    headers = {"Idempotency-Key": "order-4712"}
    answers = [http.post("/v2/models/churn/infer", json=body, headers=headers) for _ in range(2)]
    assert answers[0].json() == answers[1].json()
    assert answers[0].headers["headrace-job"] == "order-4712.predict,order-4712.predict_proba"
    # tritonclient sends headers that its caller gives.
    age, plan = tensor("age", [70.0]), tensor("plan", ["basic"])
    client.infer("churn", [age, plan], headers={"Idempotency-Key": "order-4713"})
    with pytest.raises(triton.InferenceServerException, match="this Idempotency-Key was used for another"):
        client.infer("churn", [tensor("age", [1.0]), plan], headers={"Idempotency-Key": "order-4713"})


def test_a_model_that_no_worker_has_in_memory_is_not_ready(
    client: triton.InferenceServerClient, shared: Site, http: httpx.Client
) -> None:
    contract = Contract(model="ghost", version="1", input=Text(), methods={"predict": Output(shape=())})
    with redis.Redis.from_url(shared.url) as server:
        publish_contract(server, KEYS, contract)
        assert not client.is_model_ready("ghost")
        answer = http.get("/v2/models/ghost/ready")
        assert (answer.status_code, answer.json()) == (503, {"name": "ghost", "ready": False})
        assert client.get_model_metadata("ghost")["inputs"][0]["datatype"] == "BYTES"
        server.delete(KEYS.contracts("ghost"))
        server.srem(KEYS.models, "ghost")


def test_requests_of_async_infer_are_all_answered(
    client: triton.InferenceServerClient, gateway: RunningGateway
) -> None:
    with contextlib.contextmanager(connect)(gateway.url, concurrency=8) as parallel:
        requests = [parallel.async_infer("doubling", [tensor("rows", [[n, 0.0, 0.0]])]) for n in range(40)]
        answers = [request.get_result().as_numpy("predict").tolist() for request in requests]
    assert answers == [[2.0 * n] for n in range(40)]


def test_the_time_limit_and_the_priority_of_a_request_are_those_of_its_job(
    client: triton.InferenceServerClient,
) -> None:
    rows = [tensor("rows", [[1.0, 0, 0]])]
    assert client.infer("doubling", rows, priority=9, timeout=30_000_000).as_numpy("predict").tolist() == [2.0]
    with pytest.raises(triton.InferenceServerException, match="`priority` is an integer from 0"):
        client.infer("doubling", rows, priority=10)
