"""The frame of every request: log, metrics, health, headers, other origins."""

from __future__ import annotations

import json
from collections.abc import Iterator

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.support.command import headrace
from tests.support.connections import free_port
from tests.support.gateway import RunningGateway, running_gateway
from tests.support.served_worker import Site
from tests.support.silent_redis import stopped
from tests.support.waiting import wait_until

PREDICT = "/v1/models/doubling:predict"
BODY = {"instances": [[2, 0, 0]]}
ORIGIN = "https://shop.example.com"


@pytest.fixture(scope="module", params=["1", "2"], ids=["one process", "two processes"])
def framed(request: pytest.FixtureRequest, shared: Site) -> Iterator[tuple[RunningGateway, httpx.URL]]:
    """A gateway of one process or two with metrics, that pages of one origin may call, and the URL of metrics."""
    port = free_port()
    settings = {
        "HEADRACE_GATEWAY_METRICS_PORT": str(port),
        "HEADRACE_GATEWAY_ORIGINS": f"{ORIGIN}, http://localhost:3000",
        "HEADRACE_GATEWAY_PROCESSES": request.param,
    }
    with running_gateway(shared.url, shared.folder, name=f"framed-{request.param}", **settings) as gateway:
        yield gateway, httpx.URL(f"http://127.0.0.1:{port}")


def log_of(gateway: RunningGateway) -> list[dict[str, object]]:
    """Return the lines of a gateway's log, all of which are JSON besides the first."""
    lines = gateway.child.log.read_text().splitlines()
    return [json.loads(line) for line in lines if not line.startswith("API on ")]


def test_every_request_is_a_line_of_the_log_and_no_line_has_a_body(
    framed: tuple[RunningGateway, httpx.URL],
) -> None:
    gateway, _ = framed
    with gateway.client(timeout=20) as http:
        answer = http.post(PREDICT, json={"instances": [[1234.5, 0, 0]]})
        http.post(PREDICT, json={"instances": [["confidential", 0, 0]]})
        http.get("/no/such/path?key=confidential")
    job = answer.json()["id"]
    line = wait_until(lambda: next((line for line in log_of(gateway) if line.get("job") == job), None))
    assert {name: line[name] for name in ("event", "level", "method", "route", "status", "bytes")} == {
        "event": "request",
        "level": "info",
        "method": "POST",
        "route": "/v1/models/{model}:predict",
        "status": 200,
        "bytes": len(answer.content),
    }
    assert isinstance(line["ms"], float)
    wait_until(lambda: any(line.get("route") == "none" and line["status"] == 404 for line in log_of(gateway)))
    text = gateway.child.log.read_text()
    assert "1234.5" not in text
    assert "confidential" not in text


def test_requests_are_counted_by_route_and_status_over_all_processes(
    framed: tuple[RunningGateway, httpx.URL],
) -> None:
    gateway, health = framed
    before = _count(health)
    for _ in range(20):
        with gateway.client(timeout=20) as http:
            assert http.post(PREDICT, json=BODY).status_code == 200
    assert _count(health) - before == 20
    names = {family.name for family in text_string_to_metric_families(_metrics(health))}
    assert {"headrace_gateway_requests", "headrace_gateway_request_seconds", "headrace_gateway_waiting"} <= names


def _metrics(health: httpx.URL) -> str:
    return httpx.get(health.join("/metrics")).text


def _count(health: httpx.URL) -> float:
    labels = {"method": "POST", "route": "/v1/models/{model}:predict", "status": "200"}
    return sum(
        sample.value
        for family in text_string_to_metric_families(_metrics(health))
        for sample in family.samples
        if sample.name == "headrace_gateway_requests_total" and sample.labels == labels
    )


def test_a_gateway_is_ready_while_redis_answers_and_lives_without_it(
    framed: tuple[RunningGateway, httpx.URL], shared: Site
) -> None:
    _, health = framed
    assert httpx.get(health.join("/live")).text == "all is well\n"
    wait_until(lambda: httpx.get(health.join("/ready")).status_code == 200)
    with stopped(shared.url):
        answer = wait_until(lambda: _unready(health))
        assert "Redis" in answer.text
        assert httpx.get(health.join("/live")).status_code == 200
    wait_until(lambda: httpx.get(health.join("/ready")).status_code == 200)


def _unready(health: httpx.URL) -> httpx.Response | None:
    answer = httpx.get(health.join("/ready"), timeout=20)
    return answer if answer.status_code == 503 else None


def test_no_answer_may_be_stored_sniffed_or_framed(framed: tuple[RunningGateway, httpx.URL]) -> None:
    gateway, _ = framed
    with gateway.client(timeout=20) as http:
        for answer in (http.post(PREDICT, json=BODY), http.get("/no-such-path")):
            assert answer.headers["cache-control"] == "no-store"
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
            assert "server" not in answer.headers


def test_pages_of_the_origins_of_the_setting_may_call_and_no_others(
    framed: tuple[RunningGateway, httpx.URL],
) -> None:
    gateway, _ = framed
    asks = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "idempotency-key, prefer"}
    with gateway.client(timeout=20) as http:
        allowed = http.options(PREDICT, headers={"Origin": ORIGIN, **asks})
        refused = http.options(PREDICT, headers={"Origin": "https://elsewhere.example.com", **asks})
        read = http.post(PREDICT, json=BODY, headers={"Origin": ORIGIN})
    assert (allowed.status_code, allowed.headers["access-control-allow-origin"]) == (200, ORIGIN)
    assert "access-control-allow-credentials" not in allowed.headers
    assert refused.status_code == 400
    assert "access-control-allow-origin" not in refused.headers
    assert "Location" in read.headers["access-control-expose-headers"]


def test_no_page_of_another_origin_may_call_without_the_setting(http: httpx.Client) -> None:
    answer = http.post(PREDICT, json=BODY, headers={"Origin": ORIGIN})
    assert not [name for name in answer.headers if name.startswith("access-control")]


@pytest.mark.parametrize("origins", ["*", "https://shop.example.com, *", "shop.example.com"])
def test_a_gateway_does_not_start_with_an_origin_that_is_none(origins: str, gateway: RunningGateway) -> None:
    port = str(httpx.URL(gateway.url).port)  # it is taken, and that is not looked at
    settings = {"HEADRACE_GATEWAY_ORIGINS": origins, "HEADRACE_GATEWAY_PORT": port}
    assert "HEADRACE_GATEWAY_ORIGINS cannot be used" in refusal(**settings)


@pytest.mark.parametrize("processes", ["1", "2"])
@pytest.mark.parametrize("name", ["HEADRACE_GATEWAY_ORIGINS", "HEADRACE_JOB_KEYS"])
def test_a_gateway_of_any_number_of_processes_ends_if_a_setting_cannot_be_used(name: str, processes: str) -> None:
    error = refusal(**{name: "*", "HEADRACE_GATEWAY_PROCESSES": processes})
    assert f"headrace: {name} cannot be used" in error


def test_a_gateway_does_not_start_on_a_port_that_is_taken(gateway: RunningGateway) -> None:
    port = str(httpx.URL(gateway.url).port)
    assert f"cannot listen on 127.0.0.1, port {port}" in refusal(HEADRACE_GATEWAY_PORT=port)


def refusal(**settings: str) -> str:
    """Return what a gateway with these settings writes that does not start."""
    process = headrace("gateway", HEADRACE_GATEWAY_OPEN="true", **settings)
    assert process.returncode == 1
    assert "Traceback" not in process.stderr
    return process.stderr
