"""MLflow's and SageMaker's `/invocations`: the forms of MLflow's documentation, CSV, errors and `/ping`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import numpy as np
import pandas as pd
import pytest

from tests.support.gateway import RunningGateway, running_gateway
from tests.support.served_worker import Site

#: Forms of a frame, by MLflow's names.
FORMS: dict[str, Callable[[pd.DataFrame], dict[str, Any]]] = {
    "dataframe_split": lambda frame: {"dataframe_split": frame.to_dict("split")},
    "dataframe_records": lambda frame: {"dataframe_records": frame.to_dict("records")},
    "instances": lambda frame: {"instances": frame.to_dict("records")},
    "instances in lists": lambda frame: {"instances": frame.to_numpy(dtype=object).tolist()},
    "inputs": lambda frame: {"inputs": frame.to_dict("list")},
    "inputs of a matrix": lambda frame: {
        "inputs": {name: [[value] for value in column] for name, column in frame.to_dict("list").items()}
    },
    "inputs in records": lambda frame: {"inputs": frame.to_dict("records")},
}


@pytest.fixture(scope="module")
def alone(shared: Site, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningGateway]:
    """A gateway of the one model `churn`."""
    folder = tmp_path_factory.mktemp("alone")
    with running_gateway(shared.url, folder, HEADRACE_GATEWAY_MODEL="churn") as gateway:
        yield gateway


def invoke(http: httpx.Client, body: Any, model: str = "churn") -> httpx.Response:
    """Send a body as MLflow's clients write JSON: a missing value is NaN."""
    content = json.dumps(body).encode()
    return http.post(f"/models/{model}/invocations", content=content, headers={"Content-Type": "application/json"})


@pytest.mark.parametrize("form", FORMS)
def test_each_form_of_mlflow_is_predicted_as_by_scikit_learn(http: httpx.Client, shared: Site, form: str) -> None:
    estimator, unseen = shared.demo["churn"][1]
    frame = unseen[:60]
    assert frame["age"].isna().sum() == 2
    body = FORMS[form](frame)
    assert invoke(http, body).json() == {"predictions": estimator.predict(frame).tolist()}
    body["params"] = {"method": "predict_proba", "priority": 3, "expires": 60, "version": "1"}
    assert invoke(http, body).json() == {"predictions": estimator.predict_proba(frame).tolist()}


def test_tensors_are_predicted_by_name_or_without(http: httpx.Client, shared: Site) -> None:
    estimator, images = shared.demo["digits"][1]
    rows, labels = images[:3].tolist(), estimator.predict(images[:3]).tolist()
    for body in (
        {"inputs": rows},
        {"inputs": {"image": rows}},
        {"instances": rows},
        {"instances": [{"image": row} for row in rows]},
    ):
        assert invoke(http, body, "digits").json() == {"predictions": labels}


def test_columns_that_are_no_features_are_left_out(http: httpx.Client) -> None:
    predictions = {"predictions": [0, 1]}
    records = [{"id": 7, "age": 70, "plan": "basic"}, {"id": 8, "age": 60, "plan": "gold"}]
    assert invoke(http, {"dataframe_records": records}).json() == predictions
    split = {"columns": ["id", "plan", "age"], "data": [[7, "basic", 70], [8, "gold", 60]]}
    assert invoke(http, {"dataframe_split": split}).json() == predictions
    csv = "id,plan,age\n7,basic,70\n8,gold,60\n"
    answer = http.post("/models/churn/invocations", content=csv, headers={"Content-Type": "text/csv"})
    assert answer.json() == predictions


def test_csv_is_predicted_as_by_scikit_learn(http: httpx.Client, shared: Site) -> None:
    estimator, unseen = shared.demo["churn"][1]
    frame = unseen[:60]
    headers = {"Content-Type": "text/csv; charset=utf-8"}
    answer = http.post("/models/churn/invocations", content=frame.to_csv(index=False), headers=headers)
    assert answer.json() == {"predictions": estimator.predict(frame).tolist()}
    # SageMaker's own models take and send CSV without a header.
    headers = {"Content-Type": "text/csv; header=absent", "Accept": "text/csv"}
    content = frame.to_csv(index=False, header=False)
    answer = http.post("/models/churn/invocations", content=content, headers=headers)
    assert answer.headers["content-type"].startswith("text/csv")
    assert [int(line) for line in answer.text.splitlines()] == estimator.predict(frame).tolist()


def test_predictions_as_csv_are_a_line_each(http: httpx.Client, shared: Site) -> None:
    estimator, unseen = shared.demo["churn"][1]
    body = {"dataframe_split": unseen[:3].to_dict("split"), "params": {"method": "predict_proba"}}
    content = json.dumps(body).encode()
    headers = {"Content-Type": "application/json", "Accept": "text/csv"}
    answer = http.post("/models/churn/invocations", content=content, headers=headers)
    table = np.loadtxt(answer.text.splitlines(), delimiter=",")
    assert np.array_equal(table, estimator.predict_proba(unseen[:3]))


@pytest.mark.parametrize(
    ("body", "status", "text"),
    [
        ([1], 400, "the body must be an object, got a list"),
        ({}, 400, "exactly one of dataframe_split, dataframe_records, instances, inputs; it has none"),
        ({"instances": [], "inputs": []}, 400, "it has instances and inputs"),
        ({"columns": ["age"], "data": [[1]]}, 400, "`columns` is unknown"),
        ({"instances": [], "params": {"temperature": 1}}, 400, "`params.temperature` is unknown"),
        ({"dataframe_split": {"columns": ["age"], "data": [[1, 2]]}}, 400, "row 0 of dataframe_split.data has 2"),
        (
            {"dataframe_split": {"columns": ["age", "age"], "data": []}},
            400,
            "columns 1 and 2 are both named 'age'",
        ),
        ({"inputs": {"age": [1, 2], "plan": ["gold"]}}, 400, "1 values for 'plan', and 2 for 'age'"),
        ({"inputs": {"age": [1, 2], "plan": "gold"}}, 400, "a list for 'age' and a single value"),
        ({"instances": []}, 422, "at least one instance"),
        ({"instances": [[1, 2, 3]]}, 422, "must be an object of 2 named features, got a list of 3"),
        ({"dataframe_records": [{"agee": 1, "plan": "gold"}]}, 422, "no feature 'agee' in the contract; did you"),
        ({"instances": [{"age": "old", "plan": "gold"}]}, 422, "feature 'age' must be a number, got a string"),
    ],
)
def test_a_wrong_body_is_refused_in_the_words_of_mlflows_errors(
    http: httpx.Client, body: Any, status: int, text: str
) -> None:
    answer = invoke(http, body)
    problem = answer.json()
    assert answer.status_code == status, problem
    assert text in problem["message"]
    assert problem["message"] == problem["detail"]
    assert problem["error_code"] == {400: "BAD_REQUEST", 422: "INVALID_PARAMETER_VALUE"}[status]


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", "the CSV has no row of values after the line of column names"),
        (b"age,plan\n", "the CSV has no row of values"),
        (b"age,plan\n41\n", "line 2 of the CSV has 1 cells, and the first line 2"),
        (b"age,age\n41,3\n", "columns 1 and 2 are both named 'age'"),
        (b"age,plan\n41,\xff\n", "not UTF-8"),
        (b'age,plan\n41,"gold\n', "the CSV cannot be read"),
        (b"age,plan\n41," + b"x" * 200_000, "the CSV cannot be read: field larger than field limit"),
    ],
)
def test_a_wrong_csv_is_refused(http: httpx.Client, content: bytes, text: str) -> None:
    answer = http.post("/models/churn/invocations", content=content, headers={"Content-Type": "text/csv"})
    assert (answer.status_code, text in answer.json()["message"]) == (400, True), answer.text


def test_other_types_of_bodies_are_415(http: httpx.Client) -> None:
    for kind in ("application/x-parquet", "application/json; charset=latin-1"):
        answer = http.post("/models/churn/invocations", content=b"{}", headers={"Content-Type": kind})
        assert (answer.status_code, answer.headers["accept"]) == (415, "application/json, text/csv")


def test_a_repeat_with_an_idempotency_key_is_the_same_job(http: httpx.Client) -> None:
    body = {"instances": [{"age": 70, "plan": "basic"}]}
    headers = {"Idempotency-Key": "order-4711"}
    answers = [http.post("/models/churn/invocations", json=body, headers=headers) for _ in range(2)]
    assert [answer.json() for answer in answers] == [{"predictions": [0]}] * 2
    assert {answer.headers["headrace-job"] for answer in answers} == {"order-4711"}
    reused = http.post("/models/churn/invocations", json={"instances": [{"age": 1, "plan": "x"}]}, headers=headers)
    assert (reused.status_code, reused.json()["type"].rsplit("/", 1)[1]) == (422, "idempotency-key-reused")


def test_a_model_pings_while_it_is_published(http: httpx.Client) -> None:
    assert http.get("/ping").status_code == 200
    assert http.get("/models/churn/ping").status_code == 200
    answer = http.get("/models/churned/ping")
    assert (answer.status_code, answer.json()["error_code"]) == (404, "RESOURCE_DOES_NOT_EXIST")


def test_a_gateway_of_one_model_needs_no_model_in_the_path(
    http: httpx.Client, alone: RunningGateway, shared: Site
) -> None:
    body = {"instances": [{"age": 70, "plan": "basic"}]}
    refused = http.post("/invocations", json=body)
    assert (refused.status_code, "set HEADRACE_GATEWAY_MODEL" in refused.json()["message"]) == (404, True)
    answer = httpx.post(f"{alone.url}/invocations", json=body)
    assert answer.json() == {"predictions": [0]}
