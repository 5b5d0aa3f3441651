"""Jobs with an id over HTTP: submit, repeat, wait, poll, cancel, look back."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator

import httpx
import pytest
import redis

from headrace.wire.record import decode_record
from tests.support.claim_models import SLEEP
from tests.support.served_worker import KEYS, Site
from tests.support.waiting import wait_until

JOBS, PREDICT = "/v1/models/doubling/jobs", "/v1/models/doubling:predict"
#: A row that is predicted at once, and one that takes a while.
ROW, SLOW = [2, 0, 0], [2, SLEEP, 1.5]


@pytest.fixture
def server(shared: Site) -> Iterator[redis.Redis]:
    """A connection to the Redis of the site."""
    with redis.Redis.from_url(shared.url) as server:
        yield server


def outcome_of(http: httpx.Client, job: str) -> dict[str, object]:
    """Wait for the outcome of a job and return it."""
    body: dict[str, object] = http.get(f"/v1/jobs/{job}", headers={"Prefer": "wait=30"}).json()
    return body


def test_a_job_is_accepted_with_its_place_and_its_outcome_is_found_there(http: httpx.Client) -> None:
    answer = http.post(JOBS, json={"instances": [ROW, [3, 0, 0]]}, headers={"Prefer": "respond-async"})
    body = answer.json()
    assert (answer.status_code, body["status"], body["model"]) == (202, "waiting", "doubling")
    assert answer.headers["location"] == f"/v1/jobs/{body['id']}"
    assert answer.headers["retry-after"] == "1"
    assert answer.headers["preference-applied"] == "respond-async"
    assert outcome_of(http, body["id"]) == {
        "id": body["id"],
        "status": "success",
        "model": "doubling",
        "version": "1",
        "predictions": [4.0, 6.0],
    }


def test_a_job_that_ends_within_the_wait_is_answered_with_its_outcome(http: httpx.Client) -> None:
    answer = http.post(JOBS, json={"instances": [ROW]}, headers={"Prefer": "wait=20"})
    assert (answer.status_code, answer.headers["preference-applied"]) == (200, "wait=20")
    assert (answer.json()["status"], answer.json()["predictions"]) == ("success", [4.0])


def test_a_wait_is_no_longer_than_the_gateway_lets_it_be(http: httpx.Client) -> None:
    answer = http.post(JOBS, json={"instances": [ROW]}, headers={"Prefer": "wait=99999"})
    assert answer.headers["preference-applied"] == "wait=120"


def test_a_prediction_that_should_not_be_waited_for_is_accepted(http: httpx.Client) -> None:
    answer = http.post(PREDICT, json={"instances": [ROW]}, headers={"Prefer": "respond-async"})
    assert answer.status_code == 202
    assert outcome_of(http, answer.json()["id"])["predictions"] == [4.0]


def test_a_put_tells_a_new_job_from_a_known_one_and_an_ended_one(http: httpx.Client) -> None:
    body = {"model": "doubling", "instances": [SLOW]}
    first = http.put("/v1/jobs/order-1", json=body)
    again = http.put("/v1/jobs/order-1", json=body)
    assert (first.status_code, again.status_code) == (201, 202)
    assert first.headers["location"] == again.headers["location"] == "/v1/jobs/order-1"
    assert outcome_of(http, "order-1")["status"] == "success"
    last = http.put("/v1/jobs/order-1", json=body)
    assert (last.status_code, last.json()["predictions"]) == (200, [4.0])


def test_a_put_may_wait_for_the_outcome(http: httpx.Client) -> None:
    body = {"model": "doubling@1", "instances": [ROW]}
    answer = http.put("/v1/jobs/order-2", json=body, headers={"Prefer": "wait=20"})
    assert (answer.status_code, answer.json()["version"]) == (201, "1")


def test_a_key_and_an_id_of_the_same_name_are_the_same_job(http: httpx.Client, server: redis.Redis) -> None:
    key = f"order-{uuid.uuid4()}"
    first = http.post(JOBS, json={"instances": [ROW]}, headers={"Idempotency-Key": f'"{key}"'})
    again = http.post(PREDICT, json={"instances": [ROW]}, headers={"Idempotency-Key": key})
    put = http.put(f"/v1/jobs/{key}", json={"model": "doubling", "instances": [ROW]})
    assert first.json()["id"] == again.json()["id"] == put.json()["id"] == key
    assert len(list(server.scan_iter(KEYS.job(key)))) == 1


@pytest.mark.parametrize("key", ["Bestellung Nr. 7", "k" * 255, "$%&", "-starts-badly"])
def test_a_key_that_no_id_may_look_like_is_one_job_too(http: httpx.Client, key: str) -> None:
    headers = {"Idempotency-Key": key}
    first = http.post(JOBS, json={"instances": [ROW]}, headers=headers)
    again = http.post(JOBS, json={"instances": [ROW]}, headers=headers)
    assert first.json() == again.json()
    assert outcome_of(http, first.json()["id"])["status"] == "success"


def test_an_id_that_an_answer_told_is_taken_as_it_is(http: httpx.Client) -> None:
    job = http.post(JOBS, json={"instances": [ROW]}).json()["id"]
    again = http.put(f"/v1/jobs/{job}", json={"model": "doubling", "instances": [ROW]})
    assert (again.json()["id"], again.status_code in {200, 202}) == (job, True)


def test_all_options_of_a_job_reach_it(http: httpx.Client, server: redis.Redis) -> None:
    body = {
        "instances": [ROW],
        "parameters": {"method": "predict", "version": "1", "priority": 9, "expires": 3600},
        "metadata": {"order": "4711"},
        "delay": 600,
    }
    job = http.post(JOBS, json=body).json()["id"]
    stored = server.get(KEYS.job(job))
    assert stored is not None
    record = decode_record(job, stored)
    assert record.metadata == {"order": "4711"}
    assert record.not_before_ms is not None
    assert 590 < record.not_before_ms / 1000 - time.time() <= 600
    wait_until(lambda: server.zcard(KEYS.delayed("predict.doubling")) >= 1, 20)
    assert http.delete(f"/v1/jobs/{job}").json()["status"] == "cancelled"


def test_a_long_poll_ends_with_the_outcome(http: httpx.Client) -> None:
    job = http.post(JOBS, json={"instances": [SLOW]}).json()["id"]
    early = http.get(f"/v1/jobs/{job}")
    assert early.json()["status"] in {"waiting", "running"}
    assert early.headers["retry-after"] == "1"
    assert outcome_of(http, job)["status"] == "success"


def test_a_poll_that_knows_the_status_is_304_until_it_changes(http: httpx.Client) -> None:
    job = http.post(JOBS, json={"instances": [ROW], "delay": 2.5}).json()["id"]
    tag = http.get(f"/v1/jobs/{job}").headers["etag"]
    assert tag == '"waiting"'
    same = http.get(f"/v1/jobs/{job}", headers={"If-None-Match": f"W/{tag}"})
    assert (same.status_code, same.content, same.headers["etag"]) == (304, b"", tag)
    waited = http.get(f"/v1/jobs/{job}", headers={"If-None-Match": tag, "Prefer": "wait=1"})
    assert waited.status_code == 304
    changed = http.get(f"/v1/jobs/{job}", headers={"If-None-Match": tag, "Prefer": "wait=30"})
    assert (changed.status_code, changed.headers["etag"]) == (200, '"success"')
    assert "retry-after" not in changed.headers


def test_a_cancelled_job_stays_cancelled_and_an_ended_one_cannot_be(http: httpx.Client) -> None:
    job = http.post(JOBS, json={"instances": [ROW], "delay": 600}).json()["id"]
    for _ in range(2):
        answer = http.delete(f"/v1/jobs/{job}")
        assert (answer.status_code, answer.json()["status"]) == (200, "cancelled")
    other = http.post(JOBS, json={"instances": [ROW]}, headers={"Prefer": "wait=30"}).json()["id"]
    answer = http.delete(f"/v1/jobs/{other}")
    assert (answer.status_code, answer.json()["outcome"]) == (409, "success")
    assert answer.json()["type"].endswith("/already-ended")


def test_the_timeline_of_a_job_names_its_steps(http: httpx.Client) -> None:
    job = http.post(JOBS, json={"instances": [ROW]}, headers={"Prefer": "wait=30"}).json()["id"]
    timeline = http.get(f"/v1/jobs/{job}/timeline").json()
    assert (timeline["job"], timeline["status"], timeline["model"]) == (job, "success", "doubling")
    assert timeline["steps"][0]["kind"] == "submitted"
    assert "predicted" in {step["kind"] for step in timeline["steps"]}
