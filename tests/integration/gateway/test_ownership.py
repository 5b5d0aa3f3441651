"""Owners of jobs and bulk runs: what belongs to another caller is 404, for every route that takes an id."""

from __future__ import annotations

import threading

import msgspec
import pytest
import redis
from prometheus_client import CollectorRegistry

from headrace import Client
from headrace.wire.keys import Keys
from headrace_gateway.app import create_app
from headrace_gateway.settings import GatewaySettings
from tests.support.claim_models import SLEEP
from tests.support.gateway import RunningGateway
from tests.support.gateway_callers import caller_of, new_key
from tests.support.served_worker import Site, shared
from tests.support.waiting import wait_until

__all__ = ["shared"]  # a fixture

PREDICT = "/v1/models/doubling:predict"
BODY = {"instances": [[2, 0, 0]]}


def routes_with(parameter: str) -> list[tuple[str, str]]:
    """Return each route with a parameter in its path, with each of its methods besides PUT, which makes a job."""
    app = create_app(GatewaySettings(), registry=CollectorRegistry())
    return [
        (method, route.path)
        for route in app.routes
        for method in sorted(getattr(route, "methods", None) or ())
        if f"{{{parameter}}}" in getattr(route, "path", "") and method not in {"HEAD", "PUT"}
    ]


@pytest.mark.parametrize(("method", "path"), [*routes_with("job"), ("GET", "/v1/events?job={job}")])
def test_another_callers_job_is_404_as_one_that_does_not_exist(
    keyed: RunningGateway, shared: Site, method: str, path: str
) -> None:
    _, key = new_key(shared.url)
    _, other = new_key(shared.url)
    with (
        caller_of(keyed, key) as owner,
        caller_of(keyed, other) as thief,
        Client(shared.url) as producer,
    ):
        own = owner.post(PREDICT, json=BODY).json()["id"]
        foreign = producer.submit("doubling", [2, 0, 0]).id
        answers = [thief.request(method, path.replace("{job}", job)) for job in (own, foreign, "no-such-job")]
        assert [answer.status_code for answer in answers] == [404] * 3
        documents = [answer.json() | {"instance": ""} for answer in answers]
        assert documents[0] == documents[1] == documents[2]
        assert producer.job(own).status() == "success"


def test_two_callers_use_one_id_and_neither_meets_the_others_job(keyed: RunningGateway, shared: Site) -> None:
    (first_name, first), (second_name, second) = new_key(shared.url), new_key(shared.url)
    with caller_of(keyed, first) as owner, caller_of(keyed, second) as other:
        for http, number, name in ((owner, 2, first_name), (other, 3, second_name)):
            body = {"model": "doubling", "instances": [[number, 0, 0]]}
            answer = http.put("/v1/jobs/order-4711", json=body, headers={"Prefer": "wait=20"})
            assert (answer.status_code, answer.json()["id"]) == (201, f"{name}.order-4711")
            assert answer.json()["predictions"] == [2.0 * number]
        squat = other.put(
            f"/v1/jobs/{first_name}.order-4711", json={"model": "doubling", "instances": [[2, 0, 0]]}
        )
        assert squat.json()["id"] == f"{second_name}.{first_name}.order-4711"
        for path in ("order-4711", f"{first_name}.order-4711"):
            assert owner.get(f"/v1/jobs/{path}").json()["predictions"] == [4.0]


def test_events_of_many_jobs_are_those_of_one_caller(keyed: RunningGateway, shared: Site) -> None:
    (_, key), (_, other) = new_key(shared.url), new_key(shared.url)
    with caller_of(keyed, key) as owner, caller_of(keyed, other) as thief:
        own, foreign = (http.post(PREDICT, json=BODY).json()["id"] for http in (thief, owner))
        assert thief.get("/v1/events", params={"job": [own, foreign]}).status_code == 404
        assert thief.get("/v1/events", params={"job": [own]}).status_code == 200


def test_the_jobs_of_a_file_belong_to_the_caller_who_sent_it(keyed: RunningGateway, shared: Site) -> None:
    name, key = new_key(shared.url, "--scopes", "batch", "--max-rows", "2")
    rows = "".join(f"[{number}, {SLEEP}, 0.5]\n" for number in range(4))
    owned = b'"o":"%s"' % name.encode()
    with caller_of(keyed, key) as http, redis.Redis.from_url(shared.url) as server:

        def count_own() -> int:
            records = server.mget([*server.scan_iter(f"{Keys().job('')}*"), "none"])
            return sum(owned in record for record in records if record)

        headers = {"Content-Type": "application/x-ndjson"}
        sending = threading.Thread(
            target=http.post,
            args=("/v1/models/doubling:batch",),
            kwargs={"content": rows, "headers": headers},
        )
        sending.start()
        wait_until(lambda: count_own() == 2)  # of two rows each
        sending.join()
        assert http.post(PREDICT, json=BODY).status_code == 403


@pytest.mark.parametrize(("method", "path"), routes_with("run"))
def test_another_callers_bulk_run_is_404_as_one_that_does_not_exist(
    keyed: RunningGateway, shared: Site, method: str, path: str
) -> None:
    (name, key), (_, other) = (new_key(shared.url, "--scopes", "bulk") for _ in range(2))
    body = {"model": "doubling", "input": "in:a.csv", "output": "out:a", "name": "nightly"}
    with caller_of(keyed, key) as owner, caller_of(keyed, other) as thief:
        assert owner.post("/v1/bulk", json=body).json()["name"] == f"{name}.nightly"
        answers = [
            thief.request(method, path.replace("{run}", run))
            for run in ("nightly", f"{name}.nightly", "no-such-run")
        ]
        assert [answer.status_code for answer in answers] == [404] * 3
        assert len({msgspec.json.encode(answer.json() | {"instance": ""}) for answer in answers}) == 1
        assert thief.get("/v1/bulk").json() == {"runs": []}
        assert [run["name"] for run in owner.get("/v1/bulk").json()["runs"]] == [f"{name}.nightly"]
        assert owner.get("/v1/bulk/nightly").json()["state"] == "planning"


def test_a_run_of_a_python_producer_is_no_callers_whatever_its_name(keyed: RunningGateway, shared: Site) -> None:
    name, key = new_key(shared.url, "--scopes", "bulk")
    body = {"model": "doubling", "input": "in:a.csv", "output": "out:a", "name": "weekly"}
    with caller_of(keyed, key) as http, Client(shared.url, check=False) as producer:
        producer.bulk("doubling", "in:a.csv", "out:a", name=f"{name}.weekly")
        assert http.get("/v1/bulk").json() == {"runs": []}
        assert [http.get("/v1/bulk/weekly").status_code, http.delete("/v1/bulk/weekly").status_code] == [404, 404]
        assert http.post("/v1/bulk", json=body).status_code == 409


def test_a_key_without_stated_scopes_starts_no_bulk_run(keyed: RunningGateway, shared: Site) -> None:
    _, key = new_key(shared.url)
    with caller_of(keyed, key) as http:
        answer = http.post("/v1/bulk", json={"model": "doubling", "input": "in:a.csv", "output": "out:a"})
    assert (answer.status_code, answer.json()["detail"][:26]) == (403, "this key may not use bulk;")
