"""Predictions over HTTP."""

from __future__ import annotations

import httpx

from tests.support.served_worker import Site


def test_a_prediction_is_that_of_the_model(http: httpx.Client, shared: Site) -> None:
    answer = http.post("/v1/models/doubling:predict", json={"instances": [[2, 0, 0], [3, 0, 0]]})
    assert answer.status_code == 200
    body = answer.json()
    assert body.pop("id")
    assert body == {"predictions": [4.0, 6.0], "model": "doubling", "version": "1"}


def test_instances_that_do_not_fit_are_a_problem_that_names_what_is_wrong(http: httpx.Client) -> None:
    answer = http.post("/v1/models/doubling:predict", json={"instances": [[2, 0]]})
    assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json")
    body = answer.json()
    assert body["type"].endswith("/invalid-input")
    assert body["error"] == body["detail"]
    assert "instance 0" in body["detail"]
    assert body["errors"] == [{"pointer": "/instances/0", "detail": "must be a list of 3 values, got a list of 2"}]


def test_a_model_that_nobody_published_is_404(http: httpx.Client) -> None:
    answer = http.post("/v1/models/churned:predict", json={"instances": [[2, 0]]})
    assert (answer.status_code, answer.json()["type"].rsplit("/", 1)[1]) == (404, "unknown-model")
