"""The HTTP API of the stack: through Caddy, with API keys, attacked by callers who are slow, large or ambiguous.

Needs a Docker engine and docker-compose, as the drills.
"""

from __future__ import annotations

import json
import re
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pandas as pd
import pytest
from sklearn.pipeline import Pipeline

from tests.deploy.raw_http import Exchange, exchange, request
from tests.deploy.stack import PENGUIN, Stack

pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]

PREDICT = "/v1/models/churn:predict"
BODY = json.dumps({"instances": [PENGUIN]}).encode()


@pytest.fixture(scope="module")
def key(stack: Stack) -> str:
    """The API key of a caller who may use `churn`."""
    key = stack("docker-compose run --rm -T operator keys add shop --models churn").strip()
    stack.wait_for("the gateway is ready", lambda: stack.healthy("gateway") == 1)
    return key


@pytest.fixture
def http(stack: Stack, key: str) -> Iterator[httpx.Client]:
    """A client with the key, which trusts the stack's CA and no other."""
    context = ssl.create_default_context(cafile=stack.folder / "secrets" / "ca.pem")
    headers = {"Authorization": f"Bearer {key}"}
    with httpx.Client(
        base_url=f"https://localhost:{stack.https}", verify=context, headers=headers, timeout=60
    ) as client:
        yield client


def send(stack: Stack, *pieces: bytes, pause: float = 0.0) -> Exchange:
    return exchange(stack.https, stack.folder / "secrets" / "ca.pem", pieces, pause=pause)


# --- used --------------------------------------------------------------------------------------------


def test_a_caller_with_a_key_gets_the_model_s_own_predictions_over_https(
    http: httpx.Client, model: Pipeline, table: pd.DataFrame
) -> None:
    rows = table.head(40)
    answer = http.post(PREDICT, json={"instances": json.loads(rows.to_json(orient="records"))})
    assert answer.status_code == 200, answer.text
    assert answer.json()["predictions"] == list(model.predict(rows))
    assert answer.json()["model"] == "churn"


def test_a_job_is_put_and_read_under_an_id_of_the_caller(http: httpx.Client) -> None:
    put = http.put("/v1/jobs/order-1", json={"model": "churn", "instances": [PENGUIN]})
    assert put.status_code in (201, 202), put.text
    job = put.json()["id"]
    assert job == "shop.order-1"
    document = http.get(f"/v1/jobs/{job}", headers={"Prefer": "wait=20"}).json()
    assert document["status"] == "success"
    assert len(document["predictions"]) == 1


def test_who_has_no_key_or_the_wrong_one_gets_401_whatever_headers_say(stack: Stack, http: httpx.Client) -> None:
    claims = {
        "X-Headrace-Caller": "shop",
        "X-Forwarded-User": "shop",
        "Remote-User": "shop",
        "X-Remote-User": "shop",
        "X-Forwarded-For": "127.0.0.1",
        "Forwarded": "for=127.0.0.1",
    }
    for authorization in ("", "Bearer hr_shop_wrong", "Basic c2hvcDpzaG9w"):
        refused = http.post(PREDICT, content=BODY, headers={**claims, "Authorization": authorization})
        assert refused.status_code == 401
        assert refused.headers["WWW-Authenticate"].startswith("Bearer")
        assert refused.headers["Content-Type"] == "application/problem+json"


def test_a_revoked_key_ends_within_the_time_of_the_cache(stack: Stack, http: httpx.Client) -> None:
    key = stack("docker-compose run --rm -T operator keys add temporary --models churn").strip()
    headers = {"Authorization": f"Bearer {key}"}

    def status() -> int:
        return http.post(
            PREDICT, content=BODY, headers={**headers, "Content-Type": "application/json"}
        ).status_code

    stack.wait_for("the key is known", lambda: status() == 200)
    stack("docker-compose run --rm -T operator keys revoke temporary")
    stack.wait_for("the key is refused", lambda: status() == 401)


def test_the_api_describes_itself_over_https(http: httpx.Client) -> None:
    assert http.get("/openapi.json").json()["openapi"].startswith("3.1")
    assert "text/html" in http.get("/docs").headers["Content-Type"]


# --- attacked ----------------------------------------------------------------------------------------


def test_plain_http_is_redirected_and_reaches_no_gateway(stack: Stack) -> None:
    answer = httpx.post(f"http://localhost:{stack.http}{PREDICT}", content=BODY)
    assert (answer.status_code, answer.headers["Location"]) == (301, f"https://localhost:{stack.https}{PREDICT}")


@pytest.mark.parametrize(
    "path", ["/metrics", "/live", "/ready", "/v1/../metrics", "/v1/%2e%2e/metrics", "//metrics", "/metrics/"]
)
def test_no_path_leads_to_metrics_or_health(stack: Stack, path: str) -> None:
    answer = send(stack, request("GET", path, "Connection: close"))
    assert answer.statuses != [200]
    assert b"headrace_gateway_requests" not in answer.received


def test_the_port_of_metrics_is_on_no_published_address(stack: Stack) -> None:
    (container,) = stack.containers("gateway")
    inspected = subprocess.run(["docker", "port", container], capture_output=True, text=True, check=True)
    assert inspected.stdout == ""


def test_a_slow_head_is_cut(stack: Stack) -> None:
    head = request("POST", PREDICT, "X-Slow: " + "a" * 40)
    cut = send(stack, *(head[n : n + 1] for n in range(len(head))), pause=0.5)
    assert cut.was_closed
    assert 200 not in cut.statuses


def test_a_slow_body_is_cut_and_others_are_answered_meanwhile(stack: Stack, key: str, http: httpx.Client) -> None:
    head = request(
        "POST",
        PREDICT,
        f"Authorization: Bearer {key}",
        "Content-Type: application/json",
        f"Content-Length: {len(BODY)}",
        "Connection: close",
    )
    pieces = [head, *(BODY[n : n + 1] for n in range(60))]
    exchanges: list[Exchange] = []
    slow = [
        threading.Thread(target=lambda: exchanges.append(send(stack, *pieces, pause=0.5)), daemon=True)
        for _ in range(20)
    ]
    for thread in slow:
        thread.start()
    assert http.post(PREDICT, json={"instances": [PENGUIN]}).status_code == 200
    for thread in slow:
        thread.join(120)
    assert len(exchanges) == 20
    assert all(cut.was_closed and 200 not in cut.statuses for cut in exchanges)


@pytest.mark.parametrize("framing", ["Content-Length: 20000000", "Transfer-Encoding: chunked"])
def test_a_body_that_is_too_large_is_413_before_all_of_it_was_sent(stack: Stack, key: str, framing: str) -> None:
    head = request(
        "POST",
        PREDICT,
        f"Authorization: Bearer {key}",
        "Content-Type: application/json",
        framing,
        "Connection: close",
    )
    piece = b"a" * 1_000_000
    if "chunked" in framing:
        piece = b"%x\r\n%b\r\n" % (len(piece), piece)
    answer = send(stack, head, *[piece] * 20)
    assert answer.statuses == [413]
    assert b"application/problem+json" in answer.received


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        (["Transfer-Encoding : chunked"], b"0\r\n\r\n"),
        (["Transfer-Encoding: xchunked"], b"0\r\n\r\n"),
        (["Transfer-Encoding: chunked", "Transfer-Encoding: identity"], b"0\r\n\r\n"),
        (["Content-Length: 3", "Content-Length: 4"], b"abcd"),
        (["Content-Length: 3, 3"], b"abc"),
        (["Content-Length: +3"], b"abc"),
        (["Content-Length: -1"], b""),
        (["X-A: b\x00c"], b""),
        (["Host: other"], b""),
    ],
    ids=lambda value: repr(value)[:60],
)
def test_a_request_whose_end_is_ambiguous_is_refused(stack: Stack, headers: list[str], body: bytes) -> None:
    answer = send(stack, request("POST", PREDICT, "Connection: close", *headers, body=body))
    assert answer.statuses in ([400], [501])


def test_a_request_behind_one_with_two_lengths_is_a_request_of_its_own(stack: Stack, key: str) -> None:
    """CL.TE: who believes the length sees one request, who believes the chunks sees two. Caddy sees two, and sends
    each to where it leads, in a frame of its own: the second one is not smuggled past the routes."""
    smuggled = request("GET", "/metrics", "Connection: close")
    first = request(
        "POST",
        PREDICT,
        f"Authorization: Bearer {key}",
        "Content-Type: application/json",
        f"Content-Length: {5 + len(smuggled)}",
        "Transfer-Encoding: chunked",
        body=b"0\r\n\r\n",
    )
    answer = send(stack, first + smuggled)
    assert answer.statuses in ([400], [400, 404])
    assert b"headrace_gateway_requests" not in answer.received


def test_a_body_in_chunks_is_not_cut_at_a_length_that_contradicts_it(stack: Stack, key: str) -> None:
    """TE.CL: the chunks count, and what follows them is not read as a request of somebody else."""
    chunk = b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)
    answer = send(
        stack,
        request(
            "POST",
            PREDICT,
            f"Authorization: Bearer {key}",
            "Content-Type: application/json",
            "Content-Length: 4",
            "Transfer-Encoding: chunked",
            "Connection: close",
            body=chunk,
        ),
    )
    assert answer.statuses in ([200], [400])


def test_a_folded_header_cannot_hide_a_length(stack: Stack, key: str) -> None:
    answer = send(
        stack,
        request(
            "POST",
            PREDICT,
            f"Authorization: Bearer {key}",
            "Content-Type: application/json",
            "X-A: b\r\n Content-Length: 3",
            f"Content-Length: {len(BODY)}",
            "Connection: close",
            body=BODY,
        ),
    )
    assert answer.statuses in ([200], [400])


def test_a_gateway_cannot_connect_to_the_internet(stack: Stack) -> None:
    script = "import socket; s = socket.socket(); s.settimeout(3); print(s.connect_ex(('1.1.1.1', 443)))"
    (gateway,) = stack.containers("gateway")
    command = ["docker", "exec", gateway, "python", "-c", script]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() != "0"


def test_the_log_of_the_gateway_has_requests_and_neither_keys_nor_values(
    stack: Stack, key: str, http: httpx.Client
) -> None:
    assert http.post(PREDICT, json={"instances": [PENGUIN]}).status_code == 200
    stack.wait_for("the request is logged", lambda: ":predict" in stack("docker-compose logs --no-color gateway"))
    log = stack("docker-compose logs --no-color gateway")
    assert key.rpartition("_")[2] not in log
    assert str(PENGUIN["body_mass_g"]) not in log
    assert str(PENGUIN["island"]) not in log


# --- streamed ----------------------------------------------------------------------------------------


def test_every_row_of_a_file_sent_in_chunks_comes_back(
    stack: Stack, key: str, model: Pipeline, table: pd.DataFrame
) -> None:
    """HTTP/1.1 and chunks: a proxy may drop what it has not read when an answer begins too early."""
    rows = pd.concat([table] * 30, ignore_index=True)
    data = rows.to_csv(index=False).encode()
    pieces = [data[start : start + 20_000] for start in range(0, len(data), 20_000)]
    head = request(
        "POST",
        "/v1/models/churn:batch",
        f"Authorization: Bearer {key}",
        "Content-Type: text/csv",
        "Transfer-Encoding: chunked",
        "Connection: close",
    )
    chunks = [b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces]
    answer = send(stack, head, *chunks, b"0\r\n\r\n", pause=0.01)
    assert answer.statuses == [200]
    predicted = re.findall(rb"(?:Adelie|Chinstrap|Gentoo)", answer.body)
    assert [name.decode() for name in predicted] == list(model.predict(rows))


def test_an_event_arrives_before_the_job_has_ended(http: httpx.Client) -> None:
    job = {"model": "churn", "instances": [PENGUIN], "delay": 4}
    put = http.put("/v1/jobs/late", json=job)
    assert put.status_code == 201, put.text
    names: list[str] = []
    with http.stream("GET", f"/v1/jobs/{put.json()['id']}/events") as events:
        assert events.status_code == 200, events.read()
        assert events.headers["Content-Type"].startswith("text/event-stream")
        for line in events.iter_lines():
            if line.startswith("event: "):
                names.append(line.removeprefix("event: "))
                if len(names) == 1:
                    status: dict[str, Any] = http.get(f"/v1/jobs/{put.json()['id']}").json()
                    assert status["status"] not in ("success", "failure")
    assert names[-1] == "success"


# --- replaced ----------------------------------------------------------------------------------------


def test_gateways_are_replaced_one_by_one_and_no_job_is_lost(stack: Stack, http: httpx.Client) -> None:
    stack("docker-compose up -d --no-deps --scale gateway=2 gateway")
    stack.wait_for("two gateways are ready", lambda: stack.healthy("gateway") == 2)
    stop_requested, statuses = threading.Event(), dict[str, int]()

    def put(job: str) -> None:
        while True:  # as a careful caller does: again, until there is an answer
            try:
                answer = http.put(f"/v1/jobs/{job}", json={"model": "churn", "instances": [PENGUIN]})
            except httpx.TransportError:
                continue
            if answer.status_code not in (502, 503, 504):
                statuses[job] = answer.status_code
                return

    def submit() -> None:
        number = 0
        while not stop_requested.is_set():
            number += 1
            put(f"roll-{number}")
            time.sleep(0.02)

    thread = threading.Thread(target=submit, daemon=True)
    thread.start()
    try:
        for container in stack.containers("gateway"):
            subprocess.run(["docker", "restart", "--time", "30", container], capture_output=True, check=True)
            stack.wait_for("both are ready again", lambda: stack.healthy("gateway") == 2)
    finally:
        stop_requested.set()
        thread.join(60)
    stack("docker-compose up -d --no-deps --scale gateway=1 gateway")
    assert len(statuses) > 50
    assert set(statuses.values()) <= {200, 201, 202}
    outcomes = [http.get(f"/v1/jobs/shop.{job}", headers={"Prefer": "wait=20"}) for job in statuses]
    assert [answer.json().get("status") for answer in outcomes] == ["success"] * len(statuses)
