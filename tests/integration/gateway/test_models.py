"""The models over HTTP."""

from __future__ import annotations

import json

import httpx

from tests.support.served_worker import Site


def test_the_models_are_listed_as_kserve_lists_them(http: httpx.Client) -> None:
    models = http.get("/v1/models").json()
    assert list(models) == ["models"]
    assert {"doubling", "single", "churn"} <= set(models["models"])


def test_a_client_of_kserve_is_told_that_the_server_lives(http: httpx.Client) -> None:
    assert http.get("/").json() == {"status": "alive"}


def test_a_model_tells_what_it_takes_and_where_it_is(http: httpx.Client) -> None:
    model = http.get("/v1/models/doubling").json()
    assert (model["name"], model["ready"], model["version"], model["versions"]) == ("doubling", True, "1", ["1"])
    assert model["methods"] == ["predict"]
    assert (model["contract"]["input"]["type"], model["contract"]["input"]["shape"]) == ("array", [3])
    assert set(model["queue"]) == {"waiting", "delayed", "running"}
    assert model["paused"] is False
    assert model["aliases"] == {}


def test_a_version_of_a_model_is_told_in_both_forms(http: httpx.Client) -> None:
    assert http.get("/v1/models/doubling@1").json() == http.get("/v1/models/doubling/versions/1").json()
    predicted = http.post("/v1/models/doubling/versions/1:predict", json={"instances": [[2, 0, 0]]})
    assert predicted.json()["predictions"] == [4.0]


def test_classes_are_told_with_the_values_of_each(http: httpx.Client, shared: Site) -> None:
    rows = json.loads(shared.demo["churn"][1].unseen.head(2).to_json(orient="records"))
    answer = http.post(
        "/v1/models/churn:predict", json={"instances": rows, "parameters": {"method": "predict_proba"}}
    )
    contract = http.get("/v1/models/churn").json()["contract"]
    assert answer.json()["classes"] == contract["methods"]["predict_proba"]["classes"]
    assert [len(values) for values in answer.json()["predictions"]] == [len(answer.json()["classes"])] * 2


def test_a_model_that_nobody_published_is_404(http: httpx.Client) -> None:
    answer = http.get("/v1/models/doublin")
    assert (answer.status_code, answer.json()["type"].rsplit("/", 1)[1]) == (404, "unknown-model")
    assert "did you mean 'doubling'" in answer.json()["detail"]
