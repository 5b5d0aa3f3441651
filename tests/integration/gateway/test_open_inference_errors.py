"""Requests of Open Inference v2 that are wrong: each is answered, and names what is wrong and no value."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import redis
import tritonclient.http as triton

from headrace import Client
from tests.support.claim_models import SLEEP
from tests.support.gateway import RunningGateway, running_gateway
from tests.support.served_worker import KEYS, Site
from tests.support.tensors import connect, output, tensor
from tests.support.waiting import wait_until

LENGTH = "Inference-Header-Content-Length"
#: A value of a request that no error and no log may repeat.
SECRET = 8713.25


@pytest.fixture
def client(gateway: RunningGateway) -> Iterator[triton.InferenceServerClient]:
    yield from connect(gateway.url)


def rows(*, data: Any = (1, 0, 0), **members: Any) -> dict[str, Any]:
    """Return an input of `doubling` with other members."""
    return {"name": "rows", "shape": [1, 3], "datatype": "FP64", "data": data, **members}


def binary(size: int, **members: Any) -> dict[str, Any]:
    """Return an input of `doubling` whose data follows the JSON part."""
    described = rows(parameters={"binary_data_size": size}, **members)
    del described["data"]
    return described


def post(http: httpx.Client, inputs: Any, data: bytes | None = None, **more: Any) -> httpx.Response:
    """Send a request of `doubling`, with binary data if given."""
    body = {"inputs": inputs, **more}
    if data is None:
        return http.post("/v2/models/doubling/infer", json=body)
    text = json.dumps(body).encode()
    return http.post("/v2/models/doubling/infer", content=text + data, headers={LENGTH: str(len(text))})


@pytest.mark.parametrize(
    ("inputs", "status", "text"),
    [
        ([], 400, "`inputs` is empty"),
        ([rows(), rows()], 400, "input 'rows' is given twice"),
        ([rows(datatype="FP128")], 400, "input 'rows': its datatype is not one of BF16, BOOL, BYTES"),
        ([rows(shape=[])], 400, "1 to 16 dimensions"),
        ([rows(shape=[1] * 17)], 400, "1 to 16 dimensions"),
        ([rows(shape=[1, -3])], 400, "each dimension of its shape must be at least 1"),
        ([rows(shape=[2**40, 0])], 400, "each dimension of its shape must be at least 1"),
        ([rows(shape=[2**63, 3])], 400, "each dimension of its shape must be at least 1"),
        ([rows(shape=[2**62, 2**62])], 400, "more values than 64 bits can count"),
        ([rows(shape=[2**62, 1])], 422, "more values than the 1,000,000 of HEADRACE_MAX_JOB_VALUES"),
        ([rows(shape=[2, 2])], 400, "its data has 3 values, and its shape takes 4"),
        ([rows(shape=[1, 3.0])], 400, "`inputs[0].shape[1]` must be an integer, got a number"),
        ([rows(shape="1,3")], 400, "`inputs[0].shape` must be a list, got a string"),
        ([rows(data=SECRET)], 400, "input 'rows': `data` must be a list"),
        ([rows(data=[1, "x", 0])], 400, "input 'rows': data[1] must be a number of datatype FP64"),
        ([rows(data=[1, True, 0])], 400, "input 'rows': data[1] must be a number of datatype FP64"),
        ([rows(data=[1, 10**400, 0])], 400, "data[1] must be a number of datatype FP64"),
        ([rows(data=[[1, 2], [3]], shape=[2, 2])], 400, "its data is nested, and not as its shape says"),
        ([rows(datatype="INT8", data=[1, 300, 0])], 400, "data[1] must be an integer of datatype INT8"),
        ([rows(datatype="UINT64", data=[1, 0, 2**64])], 400, "data[2] must be an integer of datatype UINT64"),
        ([rows(datatype="BOOL", data=[1, 0, 0])], 400, "data[0] must be true or false of datatype BOOL"),
        ([rows(datatype="BYTES", data=["a", "b", 3])], 400, "data[2] must be a string of datatype BYTES"),
        ([rows(data=None)], 400, "has neither `data` nor `parameters.binary_data_size`"),
        (
            [rows(data=None, parameters={"shared_memory_region": "a"})],
            400,
            "shared memory is not supported",
        ),
        ([rows(parameters={"binary_data_size": 24})], 400, "has both `data` and"),
        ([rows(dat=[1])], 400, "`inputs[0].dat` is unknown"),
        ([rows(shape=[3], data=[1, 0, 0])], 422, "must have 2 dimensions, the instances and then 3; it has 1"),
        ([rows(shape=[1, 2], data=[SECRET, 0])], 422, "instance 0: must be a list of 3 values, got a list of 2"),
        (
            [rows(datatype="BYTES", data=["a", "b", "c"])],
            422,
            "at [0]: must be a number, got a string",
        ),
        ([rows(data=[1, None, 0])], 422, "got a missing value"),
        ([rows(name="a", shape=[1], data=[1]), rows(name="b", shape=[2], data=[1, 2])], 422, "another number"),
    ],
)
def test_a_wrong_input_is_refused_with_its_name_and_what_is_wrong(
    http: httpx.Client, inputs: list[Any], status: int, text: str
) -> None:
    answer = post(http, inputs)
    body = answer.json()
    assert answer.status_code == status, body
    assert text in body["error"]
    assert answer.headers["content-type"] == "application/json"
    assert not any(problem["pointer"].startswith("/instances") for problem in body.get("errors", ()))
    assert str(SECRET) not in answer.text


@pytest.mark.parametrize(
    ("inputs", "data", "text"),
    [
        ([binary(24)], b"\0" * 16, "its binary_data_size is more than the binary data that is left"),
        ([binary(16)], b"\0" * 24, "has 16 bytes of binary data, and its shape and datatype FP64 take 24"),
        ([binary(24)], b"\0" * 32, "8 bytes of binary data belong to no input"),
        ([rows()], b"\0" * 8, "8 bytes of binary data belong to no input"),
        ([binary(-8)], b"\0" * 24, "`binary_data_size` must be an integer from 0"),
        ([binary(2**63)], b"\0" * 24, "`binary_data_size` must be an integer from 0"),
        ([binary(2**62)], b"\0" * 24, "is more than the binary data that is left"),
        ([binary(4, datatype="BYTES", shape=[1])], b"\xff\xff\xff\xff", "value 0 is longer than the binary data"),
        ([binary(3, datatype="BYTES", shape=[1])], b"\0\0\0", "is not 1 values, each with its length"),
        ([binary(8, datatype="BYTES", shape=[1])], b"\0" * 8, "is not 1 values, each with its length"),
        ([binary(5, datatype="BYTES", shape=[1])], b"\1\0\0\0\xff", "value 0 is not a text in UTF-8"),
    ],
)
def test_binary_data_that_is_not_what_the_request_says_is_refused(
    http: httpx.Client, inputs: list[Any], data: bytes, text: str
) -> None:
    answer = post(http, inputs, data)
    assert (answer.status_code, text in answer.json()["error"]) == (400, True), answer.text


@pytest.mark.parametrize("length", ["", "0", "-5", "x", "1e3", "99999", "9" * 30, "\N{DIGIT FOUR}"])
def test_a_length_of_the_json_part_that_is_none_is_refused(http: httpx.Client, length: str) -> None:
    answer = http.post("/v2/models/doubling/infer", content=b"{}", headers={LENGTH: length})
    assert (answer.status_code, LENGTH in answer.json()["error"]) == (400, True), answer.text


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"", "the body is empty"),
        (b"[]", "the body must be an object, got a list"),
        (b"{}", "`inputs` is missing"),
        (
            b'{"inputs": [{"name": "rows", "shape": [1], "datatype": "FP64", "data": ' + b"[" * 100_000,
            "nested too deeply",
        ),
        (b'{"id": "\xff", "inputs": []}', "not UTF-8"),
        (json.dumps({"inputs": [rows(data=[1, 0, float("inf")])]}).encode(), "JSON has no NaN and no Infinity"),
    ],
)
def test_a_body_that_is_no_request_is_refused(http: httpx.Client, body: bytes, text: str) -> None:
    answer = http.post("/v2/models/doubling/infer", content=body)
    assert (answer.status_code, text in answer.json()["error"]) == (400, True), answer.text


def test_a_request_of_a_great_many_inputs_is_refused(http: httpx.Client) -> None:
    many = [{"name": str(number), "shape": [1], "datatype": "FP64", "data": [0]} for number in range(100_000)]
    answer = post(http, many)
    assert (answer.status_code, "more than the 16,384" in answer.json()["error"]) == (400, True)


def test_wrong_data_of_tritonclient_raises_its_exception_with_the_reason(
    client: triton.InferenceServerClient,
) -> None:
    with pytest.raises(triton.InferenceServerException, match="must be a list of 3 values, got a list of 2"):
        client.infer("doubling", [tensor("rows", np.zeros((1, 2)))])
    with pytest.raises(triton.InferenceServerException, match="must be a number, got a boolean"):
        client.infer("doubling", [tensor("rows", np.array([[True, False, False]]))])
    with pytest.raises(triton.InferenceServerException, match="is infinite"):
        client.infer("doubling", [tensor("rows", np.array([[np.inf, 0, 0]]))])
    with pytest.raises(triton.InferenceServerException, match="got a missing value"):
        client.infer("doubling", [tensor("rows", np.array([[np.nan, 0, 0]]))])
    with pytest.raises(triton.InferenceServerException, match="no feature 'agee' in the contract; did you mean"):
        client.infer("churn", [tensor("agee", [40.0]), tensor("plan", ["gold"])])
    with pytest.raises(triton.InferenceServerException, match="no method 'scores'; it has predict, predict_proba"):
        client.infer("churn", [tensor("age", [40.0]), tensor("plan", ["gold"])], outputs=[output("scores")])
    with pytest.raises(triton.InferenceServerException, match="no model 'churned' is published") as error:
        client.infer("churned", [tensor("age", [40.0])])
    assert error.value.status() == "404"


def test_a_job_without_an_outcome_in_time_is_504_and_named(shared: Site, tmp_path: Path) -> None:
    # The model sleeps for the seconds in the third column of a row of SLEEP.
    slow = rows(data=[[71, SLEEP, 3]])
    with (
        running_gateway(shared.url, tmp_path, HEADRACE_GATEWAY_WAIT="0.2") as gateway,
        gateway.client(timeout=30) as http,
    ):
        answer = post(http, [slow])
    body = answer.json()
    assert (answer.status_code, body["type"].rsplit("/", 1)[1]) == (504, "wait-over")
    assert answer.headers["location"] == f"/v1/jobs/{body['id']}"
    assert answer.headers["retry-after"] == "1"
    with Client(shared.url) as client:
        assert client.job(body["id"]).result(timeout=30).prediction == 142.0


@pytest.mark.parametrize("path", ["/v2/models/single/infer", "/models/single/invocations"])
def test_a_wait_that_the_end_of_the_gateway_cuts_is_503_and_its_job_goes_on(
    shared: Site, tmp_path: Path, path: str
) -> None:
    body = {"inputs": [[2, 0, 0]]} if "invocations" in path else {"inputs": [rows(data=[2, 0, 0])]}
    job = path.rpartition("/")[2]
    answers: list[httpx.Response] = []
    with (
        Client(shared.url) as client,
        redis.Redis.from_url(shared.url) as server,
        running_gateway(shared.url, tmp_path) as gateway,
        gateway.client(timeout=30, headers={"Idempotency-Key": job}) as http,
    ):
        shared.pause("single")
        caller = threading.Thread(target=lambda: answers.append(http.post(path, json=body)))
        caller.start()
        wait_until(lambda: bool(server.exists(KEYS.job(job))))
        gateway.child.process.terminate()
        caller.join()
        client.resume("single")
        (answer,) = answers
        assert (answer.status_code, answer.json()["type"].rsplit("/", 1)[1]) == (503, "shutting-down")
        assert (answer.json()["id"], answer.headers["location"]) == (job, f"/v1/jobs/{job}")
        assert client.job(job).result(timeout=30).predictions == [4.0]
