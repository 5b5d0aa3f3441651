"""Callers with API keys at a real gateway: who is let in, and what each may do."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest
import redis
from tritonclient.utils import InferenceServerException

from headrace import Client
from headrace.wire.keys import Keys
from tests.support.command import headrace
from tests.support.gateway import RunningGateway, running_gateway
from tests.support.gateway_callers import CALLERS_TTL, KEYED, caller_of, new_key, run_keys
from tests.support.served_worker import Site, shared
from tests.support.tensors import connect, tensor
from tests.support.waiting import wait_until

__all__ = ["shared"]  # a fixture

PREDICT = "/v1/models/doubling:predict"
BODY = {"instances": [[2, 0, 0]]}


def test_a_key_predicts_and_without_one_the_answer_says_what_to_do(keyed: RunningGateway, shared: Site) -> None:
    _, key = new_key(shared.url)
    with caller_of(keyed, key) as http:
        answer = http.post(PREDICT, json=BODY)
    assert (answer.status_code, answer.json()["predictions"]) == (200, [4.0])
    with keyed.client() as http:
        answer = http.post(PREDICT, json=BODY)
        assert (answer.status_code, answer.headers["www-authenticate"]) == (401, 'Bearer realm="headrace"')
        assert answer.headers["content-type"] == "application/problem+json"
        assert "`headrace keys add NAME`" in answer.json()["detail"]
        answer = http.post(PREDICT, json=BODY, headers={"Authorization": f"Bearer {key[:-1]}"})
        assert (answer.status_code, 'error="invalid_token"' in answer.headers["www-authenticate"]) == (401, True)
        assert key[-20:-1] not in answer.text


@pytest.mark.parametrize(
    "head",
    [
        b"Authorization: Bearer KEY\r\nAuthorization: Bearer KEY\r\n",
        b"Authorization: Bearer KEY\r\nauthorization: Basic eDp5\r\n",
        b"Authorization : Bearer KEY\r\n",
        b"Authorization: Bearer KEY\xff\r\n",
        b"Authorization:\r\n Bearer KEY\r\n",
        b"Authorization: Bearer " + b"x" * 60_000 + b"\r\n",
        b"X-Forwarded-User: caller-0\r\n",
    ],
)
def test_heads_that_servers_read_in_two_ways_let_nobody_in(
    keyed: RunningGateway, shared: Site, server_of_site: redis.Redis, head: bytes
) -> None:
    _, key = new_key(shared.url)
    before = {name: server_of_site.llen(name) for name in Keys().lists("predict.doubling")}
    host, port = keyed.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        body = b'{"instances":[[2,0,0]]}'
        connection.sendall(
            b"POST /v1/models/doubling:predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            + head.replace(b"KEY", key.encode())
            + b"Content-Length: %d\r\nConnection: close\r\n\r\n" % len(body)
            + body
        )
        status = connection.makefile("rb").readline().split()[1]
    assert status in {b"400", b"401", b"431"}
    assert {name: server_of_site.llen(name) for name in before} == before


@pytest.fixture
def server_of_site(shared: Site) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(shared.url) as client:
        yield client


@pytest.mark.parametrize(
    ("limits", "body", "refusal"),
    [
        (("--scopes", "bulk"), BODY, "403 this key may not use predict"),
        (("--models", "churn"), BODY, "403 this key may not use this model"),
        (("--max-rows", "2"), {"instances": [[2, 0, 0]] * 3}, "422 a job of this key has at most 2 instances"),
        (
            ("--priority", "4"),
            BODY | {"parameters": {"priority": 3}},
            "403 the most urgent priority of this key is 4",
        ),
    ],
)
def test_what_a_key_may_not_is_told_and_makes_no_job(
    keyed: RunningGateway, shared: Site, limits: tuple[str, ...], body: object, refusal: str
) -> None:
    _, key = new_key(shared.url, *limits)
    with caller_of(keyed, key) as http:
        answer = http.post(PREDICT, json=body)
    assert f"{answer.status_code} {answer.json()['detail']}".startswith(refusal)


def test_a_job_has_the_priority_of_its_caller_and_is_its_own(
    keyed: RunningGateway, shared: Site, server_of_site: redis.Redis
) -> None:
    name, key = new_key(shared.url, "--priority", "4", "--models", "doubling")
    with caller_of(keyed, key) as http:
        job = http.post(PREDICT, json=BODY).json()["id"]
    assert job.startswith(f"{name}.")
    assert b'"o":"%s"' % name.encode() in server_of_site.get(Keys().job(job))


def test_a_rate_is_exact_over_two_gateways(keyed: RunningGateway, shared: Site) -> None:
    _, key = new_key(shared.url, "--rate", "5/h")
    with (
        running_gateway(shared.url, shared.folder, name="second-gateway", **KEYED) as second,
        caller_of(keyed, key) as http,
        caller_of(second, key) as other,
    ):
        answers = [client.post(PREDICT, json=BODY) for client in (http, other) * 4]
    assert [answer.status_code for answer in answers] == [200] * 5 + [429] * 3
    assert [answer.headers["ratelimit"].split(";")[1] for answer in answers] == [
        f"r={left}" for left in (4, 3, 2, 1, 0, 0, 0, 0)
    ]
    assert {answer.headers["ratelimit-policy"] for answer in answers} == {'"jobs";q=5;w=3600'}
    refused = answers[-1]
    assert refused.json()["type"].endswith("/rate-limited")
    assert 3600 / 5 - 60 < int(refused.headers["retry-after"]) <= 3600 / 5


def test_requests_at_once_are_limited_and_the_place_is_free_again(keyed: RunningGateway, shared: Site) -> None:
    _, key = new_key(shared.url, "--waiting", "2")
    with caller_of(keyed, key) as http, Client(shared.url) as producer:
        later = {"model": "doubling", "delay": 600, **BODY}
        job = http.put("/v1/jobs/later", json=later).json()["id"]
        statuses: list[int] = []

        def wait() -> None:
            status = 503
            while status == 503:  # a look of the test may have the place for a moment
                status = http.get("/v1/jobs/later", headers={"Prefer": "wait=60"}, timeout=70).status_code
            statuses.append(status)

        waiting = [threading.Thread(target=wait) for _ in range(2)]
        for thread in waiting:
            thread.start()
        looks: list[httpx.Response] = []

        def is_refused() -> bool:
            looks.append(http.get("/v1/jobs/later"))
            return looks[-1].status_code == 503

        wait_until(is_refused)
        assert http.post(PREDICT, json=BODY).status_code == 503
        assert producer.job(job).cancel()
        for thread in waiting:
            thread.join()
        assert statuses == [200, 200]
        assert looks[-1].json()["type"].endswith("/too-many-waiting")
        assert looks[-1].headers["retry-after"] == "1"
        assert http.post(PREDICT, json=BODY).status_code == 200


def test_a_rotation_costs_no_request(keyed: RunningGateway, shared: Site) -> None:
    name, first = new_key(shared.url)
    current, statuses, is_over = [first], [], threading.Event()

    def call() -> None:
        with keyed.client(timeout=30) as http:
            while not is_over.is_set():
                headers = {"Authorization": f"Bearer {current[0]}"}
                statuses.append(http.post(PREDICT, json=BODY, headers=headers).status_code)

    caller = threading.Thread(target=call)
    caller.start()
    try:
        for _ in range(2):
            current[0] = run_keys(shared.url, "rotate", name)
            count = len(statuses)
            wait_until(lambda count=count: len(statuses) > count + 5)
            run_keys(shared.url, "revoke", name, "--old")
    finally:
        is_over.set()
        caller.join()
    assert set(statuses) == {200}
    assert len(statuses) > 10
    with caller_of(keyed, first) as http:
        wait_until(lambda: http.post(PREDICT, json=BODY).status_code == 401, 2 * CALLERS_TTL + 5)


def test_a_revoked_caller_is_refused_and_his_jobs_are_nobodys(keyed: RunningGateway, shared: Site) -> None:
    name, key = new_key(shared.url)
    with caller_of(keyed, key) as http:
        assert http.post(PREDICT, json=BODY).status_code == 200
        run_keys(shared.url, "revoke", name)
        wait_until(lambda: http.post(PREDICT, json=BODY).status_code == 401, 2 * CALLERS_TTL + 5)


def test_a_gateway_that_others_reach_does_not_start_open() -> None:
    ran = headrace("gateway", HEADRACE_GATEWAY_OPEN="true", HEADRACE_GATEWAY_ADDRESS="0.0.0.0")
    assert ran.returncode == 1
    assert "HEADRACE_GATEWAY_OPEN_NETWORK=true" in ran.stderr


def test_clients_of_other_protocols_send_their_key_as_a_header(keyed: RunningGateway, shared: Site) -> None:
    _, key = new_key(shared.url, "--models", "doubling")
    headers = {"Authorization": f"Bearer {key}"}
    rows = tensor("rows", [[2.0, 0, 0]])
    with contextmanager(connect)(keyed.url) as client:
        assert client.is_server_ready()  # a load balancer has no key
        assert not client.is_model_ready("doubling")
        assert client.is_model_ready("doubling", headers=headers)
        assert [model["name"] for model in client.get_model_repository_index(headers=headers)] == ["doubling"]
        assert client.infer("doubling", [rows], headers=headers).as_numpy("predict").tolist() == [4.0]
        with pytest.raises(InferenceServerException, match="this key may not use this model") as error:
            client.infer("digits", [rows], headers=headers)
        assert error.value.status() == "403"
    with caller_of(keyed, key) as http:
        # Its only model needs no name in the path.
        assert http.post("/invocations", json=BODY).json() == {"predictions": [4.0]}
        answer = http.post("/models/digits/invocations", json=BODY)
        assert (answer.status_code, answer.json()["error_code"]) == (403, "PERMISSION_DENIED")
    answer = httpx.post(f"{keyed.url}/models/doubling/invocations", json=BODY)
    assert (answer.status_code, answer.json()["error_code"]) == (401, "UNAUTHENTICATED")
    assert answer.headers["www-authenticate"].startswith("Bearer")
