"""Files, events and bulk runs of callers with keys: what each may do, and whose a stream or a run is."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import NamedTuple

import httpx
import pytest

from headrace import Client
from tests.support.command import headrace
from tests.support.gateway import running_gateway
from tests.support.served_worker import Site, client, shared, store

__all__ = ["client", "shared", "store"]  # fixtures

BATCH = "/v1/models/doubling:batch"
RUN = {"model": "doubling", "input": "in:rows.parquet", "output": "out:rows", "name": "nightly"}


class Callers(NamedTuple):
    """Clients with the keys of two callers, and of a third with few rights."""

    ann: httpx.Client
    bob: httpx.Client
    eve: httpx.Client


@pytest.fixture(scope="module")
def callers(shared: Site) -> Iterator[Callers]:
    """Callers of a gateway that asks for keys."""
    scopes = ("--scopes", "predict,jobs,batch,bulk")
    limits = {"ann": scopes, "bob": (*scopes, "--rate", "2/s"), "eve": ("--scopes", "predict")}
    keys = []
    for name, options in limits.items():
        ran = headrace("keys", "add", name, *options, HEADRACE_REDIS_URL=shared.url)
        assert ran.returncode == 0, ran.stderr
        keys.append(ran.stdout.strip())
    with running_gateway(shared.url, shared.folder, name="keyed", HEADRACE_GATEWAY_OPEN="false") as gateway:
        clients = Callers(
            *(gateway.client(timeout=30, headers={"Authorization": f"Bearer {key}"}) for key in keys)
        )
        yield clients
        for http in clients:
            http.close()


def test_events_are_those_of_the_callers_own_jobs(callers: Callers, client: Client) -> None:
    body = {"model": "doubling", "instances": [[4, 0, 0]]}
    assert callers.ann.put("/v1/jobs/order-1", json=body, headers={"Prefer": "wait=30"}).status_code == 201
    for name in ("order-1", "ann.order-1"):
        assert "event: success" in callers.ann.get(f"/v1/jobs/{name}/events").text
        assert '"id":"ann.order-1"' in callers.ann.get("/v1/events", params={"job": name}).text
        assert callers.bob.get(f"/v1/jobs/{name}/events").status_code == 404
    others = client.submit("doubling", [4, 0, 0])
    for job in (others.id, "no-such-job"):
        assert callers.ann.get(f"/v1/jobs/{job}/events").status_code == 404
        assert callers.ann.get("/v1/events", params={"job": ["order-1", job]}).status_code == 404


def test_two_names_of_one_job_are_one_event(callers: Callers) -> None:
    body = {"model": "doubling", "instances": [[4, 0, 0]]}
    callers.ann.put("/v1/jobs/order-2", json=body, headers={"Prefer": "wait=30"})
    query = {"job": ["order-2", "ann.order-2"]}
    answer = callers.ann.get("/v1/events", params=query)
    assert answer.text.count("event: outcome") == 1
    again = callers.ann.get("/v1/events", params=query, headers={"Last-Event-ID": "3"})
    assert ("id: 3\n" in answer.text, again.status_code) == (True, 204)


def test_a_key_needs_the_scope_for_files_and_for_bulk_runs(callers: Callers) -> None:
    assert callers.eve.post(BATCH, content=b"[1, 0, 0]\n").status_code == 403
    assert callers.eve.post("/v1/bulk", json=RUN).status_code == 403
    assert callers.eve.get("/v1/bulk").status_code == 403
    assert callers.eve.get("/v1/bulk/nightly").status_code == 403


def test_a_file_is_slowed_down_to_the_rate_of_its_caller_and_loses_no_row(callers: Callers) -> None:
    rows = b"[1, 0, 0]\n" * 30_001  # four jobs or more
    started = time.monotonic()
    answer = callers.bob.post(BATCH, content=rows)
    assert answer.text.endswith('{"done":30001,"failed":0}\n')
    assert time.monotonic() - started > 0.9, "two jobs at once, and two more at two a second"


def test_a_run_belongs_to_the_caller_who_named_it(callers: Callers) -> None:
    mine, yours = (http.post("/v1/bulk", json=RUN) for http in (callers.ann, callers.bob))
    assert [run.headers["location"] for run in (mine, yours)] == ["/v1/bulk/ann.nightly", "/v1/bulk/bob.nightly"]
    assert callers.ann.get("/v1/bulk/nightly").json()["name"] == "ann.nightly"
    assert callers.bob.get("/v1/bulk/ann.nightly").status_code == 404
    assert callers.bob.delete("/v1/bulk/ann.nightly").status_code == 404
    assert callers.bob.delete("/v1/bulk/nightly").json()["state"] == "cancelled"
    assert callers.ann.get("/v1/bulk/nightly").json()["state"] == "planning"
    for http, name in ((callers.ann, "ann.nightly"), (callers.bob, "bob.nightly")):
        assert [run["name"] for run in http.get("/v1/bulk").json()["runs"]] == [name]
