"""Bulk runs over HTTP: from the reference to the parts, with a real worker."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from headrace_worker.local.embedded_redis import EmbeddedRedis
from tests.support.bulk_site import BulkSite, add_bulk_model
from tests.support.claim_models import SLEEP
from tests.support.gateway import RunningGateway, running_gateway
from tests.support.waiting import wait_until

ROWS = 1000
WAIT = {"Prefer": "wait=60"}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BulkSite]:
    """A site with a worker that runs bulk jobs."""
    folder = tmp_path_factory.mktemp("bulk")
    models = add_bulk_model(folder)
    with EmbeddedRedis("--appendfsync", "no") as server:
        site = BulkSite(server, models, folder)
        site.write_table(ROWS)
        site.write_table(
            40, group_rows=20, name="slow.parquet", action={0: SLEEP, 20: SLEEP}, seconds={0: 2, 20: 2}
        )
        site.output.mkdir()
        with site.worker():
            yield site


@pytest.fixture(scope="module")
def gateway(site: BulkSite) -> Iterator[RunningGateway]:
    with running_gateway(site.redis.url, site.folder) as gateway:
        yield gateway


def body(name: str | None, **options: Any) -> dict[str, Any]:
    """Return the body of a run into a folder of its own."""
    return {"model": "doubling", "input": "in:rows.parquet", "output": f"out:{name}", "name": name, **options}


def kind_of(answer: httpx.Response) -> str:
    """Return the last part of the type of a problem."""
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    return str(answer.json()["type"].rpartition("/")[2])


def test_a_run_is_accepted_waited_for_and_read(http: httpx.Client, site: BulkSite) -> None:
    accepted = http.post("/v1/bulk", json=body("nightly", keep=["number"]))
    assert (accepted.status_code, accepted.headers["location"]) == (202, "/v1/bulk/nightly")
    assert accepted.headers["retry-after"] == "2"
    run = http.get(accepted.headers["location"], headers=WAIT)
    assert (run.status_code, run.headers["preference-applied"]) == (200, "wait=60")
    document = run.json()
    assert (document["state"], document["rows_done"], document["rows_failed"]) == ("success", ROWS, 0)
    assert (document["input"], document["keep"], document["version"]) == ("in:rows.parquet", ["number"], "1")
    assert document["submitted"] <= document["started"] <= document["ended"]
    assert site.predictions() == {number: 2.0 * number for number in range(ROWS)}
    again = http.post("/v1/bulk", json=body("nightly", keep=["number"]))
    assert (again.status_code, again.json()["state"]) == (200, "success")


def test_a_name_of_another_run_is_a_conflict(http: httpx.Client) -> None:
    assert http.post("/v1/bulk", json=body("taken"), headers=WAIT).status_code == 200
    answer = http.post("/v1/bulk", json=body("taken", keep=[]))
    assert (answer.status_code, kind_of(answer), answer.json()["name"]) == (409, "run-conflict", "taken")


def test_a_run_without_a_name_gets_one(http: httpx.Client) -> None:
    runs = [http.post("/v1/bulk", json=body(None, output=f"out:anonymous-{number}")) for number in range(2)]
    names = [run.json()["name"] for run in runs]
    assert [run.headers["location"] for run in runs] == [f"/v1/bulk/{name}" for name in names]
    assert names[0] != names[1]
    for name in names:
        assert http.get(f"/v1/bulk/{name}", headers=WAIT).json()["state"] == "success"


def test_a_run_is_cancelled_and_resumed(http: httpx.Client, site: BulkSite) -> None:
    http.post("/v1/bulk", json=body("slow", input="in:slow.parquet"))
    wait_until(lambda: http.get("/v1/bulk/slow").json()["state"] == "running")
    cancelled = http.delete("/v1/bulk/slow")
    assert (cancelled.status_code, cancelled.json()["state"]) == (200, "cancelled")
    resumed = http.post("/v1/bulk/slow/resume")
    assert resumed.status_code == 202
    assert http.get("/v1/bulk/slow", headers=WAIT).json()["state"] == "success"
    assert sorted(site.predictions("slow")) == list(range(40))
    assert http.post("/v1/bulk/slow/resume").status_code == 200
    answer = http.delete("/v1/bulk/slow")
    assert (answer.status_code, kind_of(answer)) == (409, "run-ended")


def test_the_newest_runs_are_listed_first(http: httpx.Client) -> None:
    for name in ("first", "second"):
        assert http.post("/v1/bulk", json=body(name), headers=WAIT).status_code == 200
    runs = http.get("/v1/bulk", params={"limit": 2}).json()["runs"]
    assert [run["name"] for run in runs] == ["second", "first"]
    assert http.get("/v1/bulk", params={"model": "other"}).json() == {"runs": []}
    assert http.get("/v1/bulk", params={"limit": "0"}).status_code == 400


def test_failures_are_told_by_reason(http: httpx.Client) -> None:
    document = http.post("/v1/bulk", json=body("nothing", input="in:missing.parquet"), headers=WAIT).json()
    assert document["state"] == "failure"
    assert document["error"]
    failures = http.get("/v1/bulk/nothing/failures").json()
    assert failures == {"reasons": {}, "chunks": []}


def test_a_run_that_nobody_submitted_is_404(http: httpx.Client) -> None:
    for answer in (
        http.get("/v1/bulk/none"),
        http.delete("/v1/bulk/none"),
        http.post("/v1/bulk/none/resume"),
        http.get("/v1/bulk/none/failures"),
    ):
        assert (answer.status_code, kind_of(answer)) == (404, "unknown-run")


@pytest.mark.parametrize(
    "reference",
    [
        "/etc/passwd",
        "in:../secret.parquet",
        "in:a/../../secret.parquet",
        "in:/etc/passwd",
        "in:./rows.parquet",
        "in:a//b.parquet",
        "in:a\\b.parquet",
        "in:rows.parquet\n",
        "s3://bucket/rows.parquet",
        "file:///etc/passwd",
        "http://127.0.0.1/rows.parquet",
        "IN:rows.parquet",
        "in:",
        "",
        "in:" + "x" * 2000,
    ],
)
def test_a_reference_out_of_its_location_is_refused(http: httpx.Client, reference: str) -> None:
    for field in ("input", "output"):
        answer = http.post("/v1/bulk", json=body("hostile") | {field: reference})
        assert (answer.status_code, kind_of(answer)) == (422, "invalid-input")
        assert f"`{field}`" in answer.json()["detail"]
    assert http.get("/v1/bulk/hostile").status_code == 404


def test_a_body_that_is_none_of_a_run_is_refused(http: httpx.Client) -> None:
    unknown = http.post("/v1/bulk", json=body("new", inptu="in:rows.parquet"))
    assert (unknown.status_code, kind_of(unknown)) == (400, "malformed-body")
    assert "input" in unknown.json()["detail"]
    assert http.post("/v1/bulk", json={"model": "doubling"}).status_code == 400
    assert http.post("/v1/bulk", content=b"{}", headers={"Content-Type": "text/csv"}).status_code == 415
    assert http.post("/v1/bulk", json=body("new", model="churned")).status_code == 404
    assert http.post("/v1/bulk", json=body("new", method="transform")).status_code == 422


def test_a_name_that_no_run_may_have_is_replaced_by_its_digest(http: httpx.Client) -> None:
    for _ in range(2):
        run = http.post("/v1/bulk", json=body("May 2026", output="out:may"), headers=WAIT)
        assert (run.status_code, run.json()["state"]) == (200, "success")
        assert run.headers["location"].startswith("/v1/bulk/run.")
    assert http.get("/v1/bulk/May 2026").json() == run.json()
