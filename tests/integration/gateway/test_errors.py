"""Every row of the table of errors: what a caller gets when something goes wrong."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import redis

from headrace import Client
from headrace_worker.local.embedded_redis import EmbeddedRedis
from tests.support.claim_models import KILL, SLEEP
from tests.support.gateway import RunningGateway, running_gateway
from tests.support.misbehaving_models import action_number, recurse
from tests.support.served_worker import KEYS, Site, count_waiting
from tests.support.silent_redis import stopped
from tests.support.waiting import wait_until

PREDICT, JOBS = "/v1/models/doubling:predict", "/v1/models/doubling/jobs"
#: A row that the model predicts at once, and one that it takes a while for.
ROW, SLOW = [2, 0, 0], [2, SLEEP, 3]


@pytest.fixture(scope="module")
def narrow(shared: Site) -> Iterator[RunningGateway]:
    """A gateway that lets a queue hold one job."""
    with running_gateway(shared.url, shared.folder, name="narrow", HEADRACE_QUEUE_LIMIT="1") as gateway:
        yield gateway


@pytest.fixture
def paused(shared: Site) -> Iterator[Client]:
    """A client, while no worker claims a job of the model."""
    with Client(shared.url) as client:
        shared.pause("doubling")
        yield client
        client.resume("doubling")
    with redis.Redis.from_url(shared.url) as server:  # a job that is left would fill the queue of the next test
        wait_until(lambda: not count_waiting(server))


def kind_of(answer: httpx.Response) -> tuple[int, str]:
    """Return the status and the kind of a problem, which has all members that every problem has."""
    body = answer.json()
    assert answer.headers["content-type"] == "application/problem+json"
    assert body["status"] == answer.status_code
    assert body["error"] == body["detail"]
    assert body["title"]
    assert body["instance"] == answer.request.url.path
    return answer.status_code, body["type"].rsplit("/", 1)[1]


@pytest.mark.parametrize("path", [PREDICT, JOBS])
@pytest.mark.parametrize(
    ("content", "detail"),
    [
        (b"", "empty"),
        (b'{"instances": [', "no JSON"),
        (b'{"instances": [NaN]}', "null"),
        (b"{'instances': []}", "double quotes"),
        (b'{"instances": ["\xff"]}', "UTF-8"),
        (b'{"instances": ' + b"[" * 100_000, "nested"),
        (b"[]", "the body must be an object, got a list"),
        (b'{"inputs": [1]}', "`inputs` is unknown; known: instances, parameters"),
        (b'{"instance": [1]}', "`instance` is unknown; did you mean 'instances'?"),
        (b'{"instances": [1], "priority": 3}', "`priority` is unknown there; it stands in `parameters`"),
        (b'{"instances": [1], "parameters": {"metod": "predict"}}', "did you mean 'method'?"),
        (b'{"instances": {"a": 1}}', "`instances` must be a list, got an object"),
        (b'{"instances": [1], "parameters": {"priority": "high"}}', "must be an integer, got a string"),
        (b'{"parameters": {}}', "`instances` is missing"),
    ],
)
def test_a_body_that_is_not_as_it_should_be_is_400_and_names_what_is_wrong(
    http: httpx.Client, path: str, content: bytes, detail: str
) -> None:
    answer = http.post(path, content=content, headers={"Content-Type": "application/json"})
    assert kind_of(answer) == (400, "malformed-body")
    assert detail in answer.json()["detail"]


def test_a_wrong_member_is_pointed_at_and_its_value_is_not_repeated(http: httpx.Client) -> None:
    answer = http.post(PREDICT, json={"instances": [ROW], "parameters": {"priority": "confidential"}})
    assert answer.json()["errors"] == [
        {"pointer": "/parameters/priority", "detail": "must be an integer, got a string"}
    ]
    assert "confidential" not in answer.text


@pytest.mark.parametrize("path", [PREDICT, JOBS])
def test_instances_that_do_not_fit_the_contract_are_422(http: httpx.Client, path: str) -> None:
    answer = http.post(path, json={"instances": [[2, "confidential", 0]]})
    assert kind_of(answer) == (422, "invalid-input")
    assert "instance 0" in answer.json()["detail"]
    assert "confidential" not in answer.text


@pytest.mark.parametrize("path", ["/v1/models/{}:predict", "/v1/models/{}/jobs"])
@pytest.mark.parametrize("model", ["doublin", "doubling@7", "doubling@tested"])
def test_a_model_or_a_version_that_nobody_published_is_404(http: httpx.Client, path: str, model: str) -> None:
    answer = http.post(path.format(model), json={"instances": [ROW]})
    assert kind_of(answer) == (404, "unknown-model")


def test_a_put_of_an_unknown_model_is_404(http: httpx.Client) -> None:
    answer = http.put("/v1/jobs/lonely", json={"model": "doublin", "instances": [ROW]})
    assert kind_of(answer) == (404, "unknown-model")


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/v1/jobs/nobody"), ("DELETE", "/v1/jobs/nobody"), ("GET", "/v1/jobs/nobody/timeline")],
)
def test_a_job_that_nobody_submitted_is_404(http: httpx.Client, method: str, path: str) -> None:
    assert kind_of(http.request(method, path)) == (404, "unknown-job")


def test_another_input_under_the_same_id_is_409(http: httpx.Client) -> None:
    body = {"model": "doubling", "instances": [ROW]}
    assert http.put("/v1/jobs/taken", json=body).status_code == 201
    answer = http.put("/v1/jobs/taken", json=body | {"instances": [[9, 0, 0]]})
    assert kind_of(answer) == (409, "job-conflict")


@pytest.mark.parametrize("path", [PREDICT, JOBS])
def test_another_input_under_the_same_idempotency_key_is_422(http: httpx.Client, path: str) -> None:
    headers = {"Idempotency-Key": f"reused-{path[-4:]}"}
    assert http.post(path, json={"instances": [ROW]}, headers=headers).status_code in {200, 202}
    answer = http.post(path, json={"instances": [[9, 0, 0]]}, headers=headers)
    assert kind_of(answer) == (422, "idempotency-key-reused")


def test_a_wait_that_is_over_is_202_with_the_place_to_look_for_the_job(http: httpx.Client) -> None:
    answer = http.post(PREDICT, json={"instances": [SLOW]}, headers={"Prefer": "wait=1"})
    assert (answer.status_code, answer.headers["preference-applied"]) == (202, "wait=1")
    job = http.get(answer.headers["location"], headers={"Prefer": "wait=20"})
    assert (job.json()["status"], job.json()["predictions"]) == ("success", [4.0])


def test_a_model_that_ends_its_process_is_500_with_the_reason(http: httpx.Client) -> None:
    answer = http.post("/v1/models/hasty:predict", json={"instances": [[2, KILL, 0]]})
    assert kind_of(answer) == (500, "model-failed")
    assert answer.json()["reason"] == "crash"
    job = http.get(f"/v1/jobs/{answer.json()['id']}").json()
    assert (job["status"], job["reason"]) == ("failure", "crash")


def test_a_model_that_raises_is_500_with_the_name_of_the_exception_and_no_traceback(http: httpx.Client) -> None:
    answer = http.post("/v1/models/hasty:predict", json={"instances": [[2, action_number(recurse), 0]]})
    assert kind_of(answer) == (500, "model-failed")
    assert answer.json()["exception"] == "RecursionError"
    assert "File" not in answer.text


def test_a_model_that_takes_too_long_is_504(http: httpx.Client) -> None:
    answer = http.post("/v1/models/brief:predict", json={"instances": [[2, SLEEP, 20]]})
    assert kind_of(answer) == (504, "model-timeout")


def test_a_job_that_was_not_started_in_time_is_504(http: httpx.Client, paused: Client) -> None:
    threading.Timer(0.5, paused.resume, ["doubling"]).start()
    answer = http.post(PREDICT, json={"instances": [ROW], "parameters": {"expires": 0.2}})
    assert kind_of(answer) == (504, "expired")
    assert http.get(f"/v1/jobs/{answer.json()['id']}").json()["status"] == "expired"


def test_a_job_that_is_cancelled_meanwhile_is_409(
    http: httpx.Client, gateway: RunningGateway, shared: Site, paused: Client
) -> None:
    answers = []

    def predict() -> None:
        with gateway.client(timeout=30) as other:
            answers.append(other.post(PREDICT, json={"instances": [ROW]}, headers={"Idempotency-Key": "unwanted"}))

    thread = threading.Thread(target=predict)
    thread.start()
    with redis.Redis.from_url(shared.url) as server:
        wait_until(lambda: server.exists(KEYS.job("unwanted")))
    cancelled = http.delete("/v1/jobs/unwanted")
    assert (cancelled.status_code, cancelled.json()["status"]) == (200, "cancelled")
    thread.join()
    assert kind_of(answers[0]) == (409, "cancelled")


def test_a_full_queue_is_503_with_the_id_under_which_to_repeat_and_a_time(
    narrow: RunningGateway, paused: Client
) -> None:
    with narrow.client(timeout=30) as http:
        assert http.post(JOBS, json={"instances": [ROW]}).status_code == 202
        for path in (PREDICT, JOBS):
            answer = http.post(path, json={"instances": [ROW]})
            assert kind_of(answer) == (503, "queue-full")
            assert 1 <= int(answer.headers["retry-after"]) <= 60
        paused.resume("doubling")
        job = answer.json()["id"]
        assert f"PUT /v1/jobs/{job}" in answer.json()["detail"]
        again = wait_until(lambda: _accepted(http, job))
        assert again.json()["id"] == job


def _accepted(http: httpx.Client, job: str) -> httpx.Response | None:
    answer = http.put(f"/v1/jobs/{job}", json={"model": "doubling", "instances": [ROW]})
    return answer if answer.status_code == 201 else None


def test_a_durable_job_on_a_redis_that_confirms_nothing_is_503_with_its_id(http: httpx.Client) -> None:
    answer = http.post(JOBS, json={"instances": [ROW], "durable": True})
    assert kind_of(answer) == (503, "not-durable")
    assert answer.json()["id"]


def test_a_redis_that_is_away_is_503_with_the_id_under_which_the_call_is_repeated(
    shared: Site, tmp_path: Path
) -> None:
    with (
        EmbeddedRedis() as server,
        redis.Redis.from_url(server.url) as own,
        redis.Redis.from_url(shared.url) as other,
        running_gateway(server.url, tmp_path, HEADRACE_COMMAND_TIMEOUT="1") as gateway,
        gateway.client(timeout=30) as http,
    ):
        own.hset(KEYS.contracts("doubling"), mapping=other.hgetall(KEYS.contracts("doubling")))
        own.sadd(KEYS.models, "doubling")
        assert http.post(JOBS, json={"instances": [ROW]}).status_code == 202
        with stopped(server.url):
            answer = http.post(JOBS, json={"instances": [ROW]})
            assert kind_of(answer) == (503, "broker-unavailable")
            assert int(answer.headers["retry-after"]) >= 1
            job = answer.json()["id"]
        again = http.put(f"/v1/jobs/{job}", json={"model": "doubling", "instances": [ROW]})
        assert again.status_code in {201, 202}
        assert own.llen(KEYS.lists("predict.doubling")[0]) == 2


def test_a_wrong_method_is_405_and_names_those_of_all_routes_of_the_path(http: httpx.Client) -> None:
    answer = http.post("/v1/jobs/some-job")
    assert kind_of(answer) == (405, "method-not-allowed")
    assert answer.headers["allow"] == "DELETE, GET, HEAD, PUT"


def test_a_path_that_does_not_exist_is_404(http: httpx.Client) -> None:
    assert kind_of(http.get("/v3/models")) == (404, "not-found")


@pytest.mark.parametrize("path", [PREDICT, JOBS])
@pytest.mark.parametrize("kind", [None, "text/plain", "application/x-www-form-urlencoded"])
def test_a_body_without_the_type_of_json_is_415_with_the_header_to_send(
    http: httpx.Client, path: str, kind: str | None
) -> None:
    headers = {} if kind is None else {"Content-Type": kind}
    answer = http.post(path, content=b'{"instances": [[2, 0, 0]]}', headers=headers)
    assert kind_of(answer) == (415, "unsupported-type")
    assert "-H 'Content-Type: application/json'" in answer.json()["detail"]


@pytest.mark.parametrize("kind", ["application/json; charset=utf-8", "Application/JSON", "application/cloud+json"])
def test_every_form_of_the_type_of_json_is_taken(http: httpx.Client, kind: str) -> None:
    answer = http.post(PREDICT, content=b'{"instances": [[2, 0, 0]]}', headers={"Content-Type": kind})
    assert answer.json()["predictions"] == [4.0]


@pytest.mark.parametrize("key", ["", '""', "k" * 256])
def test_an_idempotency_key_that_is_empty_or_too_long_is_400(http: httpx.Client, key: str) -> None:
    answer = http.post(JOBS, json={"instances": [ROW]}, headers={"Idempotency-Key": key})
    assert kind_of(answer) == (400, "invalid-id")


def test_a_gateway_that_shuts_down_answers_503_on_an_open_connection_and_closes_it(
    shared: Site, tmp_path: Path
) -> None:
    with (
        running_gateway(shared.url, tmp_path, HEADRACE_GATEWAY_LINGER="10") as gateway,
        gateway.client(timeout=30) as http,
    ):
        assert http.post(PREDICT, json={"instances": [ROW]}).status_code == 200
        os.kill(gateway.child.process.pid, 15)
        answer = wait_until(lambda: _refused(http))
        assert kind_of(answer) == (503, "shutting-down")
        assert answer.headers["connection"] == "close"
        http.close()
        assert gateway.child.process.wait(8) == 0


def _refused(http: httpx.Client) -> httpx.Response | None:
    answer = http.post(PREDICT, json={"instances": [ROW]})
    return answer if answer.status_code == 503 else None
