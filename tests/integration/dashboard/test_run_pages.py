"""The Runs pages of Flower: progress, failures and dead letters of bulk runs; cancel and resume by form."""

from __future__ import annotations

import json
import re
import urllib.parse
from http.cookiejar import CookieJar

import pytest

from headrace.wire.keys import Keys
from tests.support.flower_site import Site
from tests.support.stored_dead_letters import make_letter, store_letter
from tests.support.stored_runs import store_run

KEYS = Keys()
HOSTILE = "<script>document.title = 'owned'</script>"


def state_of(site: Site, name: str = "nightly") -> bytes | None:
    state: bytes | None = site.redis.hget(KEYS.run(name), "state")
    return state


def test_runs_are_listed_newest_first_with_their_progress(read_only: Site):
    progress = {"chunks": 20, "chunks_done": 5, "rows": 1_000_000, "rows_done": 250_000, "rows_failed": 12}
    store_run(read_only.redis, "old", "success", age_seconds=9000, rows_done=10, chunks=1, chunks_done=1)
    started_ms = read_only.redis.time()[0] * 1000 - 50_000
    store_run(read_only.redis, "nightly", "running", started_ms=started_ms, version="3", **progress)
    old, nightly = reversed(read_only.json("/api/runs")["runs"])
    assert (nightly["name"], nightly["model"], nightly["version"]) == ("nightly", "churn", "3")
    assert nightly["pace"]["share"] == 0.25
    assert nightly["pace"]["rows_per_second"] == pytest.approx(5000, rel=0.2)
    assert nightly["pace"]["remaining_seconds"] == pytest.approx(150, rel=0.2)
    assert (old["progress"]["state"], old["pace"]["share"], old["pace"].get("remaining_seconds")) == (
        "success",
        1.0,
        None,
    )
    page = read_only.request("/runs")[1]
    assert "25 %, 250,000 of 1,000,000 rows, 5 of 20 chunks" in page
    assert 'aria-valuenow="25"' in page
    assert "churn@3" in page


def test_the_list_of_runs_is_paged_and_a_damaged_run_hides_no_other(read_only: Site):
    for number in range(60):
        store_run(read_only.redis, f"run-{number:02}", age_seconds=1000 - number)
    read_only.redis.hset(KEYS.run("run-07"), "state", "\xff<b>")
    read_only.redis.delete(KEYS.run("run-08"))
    first = read_only.json("/api/runs")
    last = read_only.json(f"/api/runs?start={first['next']}")
    names = [run["name"] for page in (first, last) for run in page["runs"]]
    assert names == [f"run-{number:02}" for number in range(59, -1, -1) if number not in {7, 8}]
    assert last["next"] is None


def test_the_page_of_a_run_shows_its_request_reasons_failed_chunks_and_dead_letters(read_only: Site):
    fields = {"chunks": 4, "chunks_done": 3, "chunks_failed": 1, "rows_failed": 7, "error": "1 of 4 chunks failed"}
    request = {"key": "customer", "keep": ["customer", "plan"], "max_failed": "1%", "method": "predict_proba"}
    store_run(
        read_only.redis, "nightly", "failure", run=request, **fields, **{"reason:bad input": 6, "reason:crash": 1}
    )
    failure = {"job": "nightly:2", "reason": "permanent", "message": "the file has changed"}
    read_only.redis.hset(
        KEYS.receipts("nightly"), mapping={"0": '{"rows":9,"failed":7}', "!2": json.dumps(failure)}
    )
    for job in ("nightly:2", "nightly:plan", "nightly-2:2", "other:2"):
        store_letter(read_only.redis, make_letter(job, queue="bulk.churn", message="the file has changed"))
    detail = read_only.json("/api/runs/nightly")
    assert detail["reasons"] == {"bad input": 6, "crash": 1}
    assert [chunk["chunk"] for chunk in detail["failed_chunks"]] == ["2"]
    assert [letter["id"] for letter in detail["dead_letters"]] == ["nightly:2", "nightly:plan"]
    page = read_only.request("/runs/nightly")[1]
    texts = ["in:2026-11/*.parquet", "out:scores/2026-11", "customer, plan", "1 % failed rows", "predict_proba"]
    texts += ["1 of 4 chunks failed", "the file has changed", "bad input", "7 rows, 1 chunk<"]
    assert [text for text in texts if text not in page] == []
    assert 'href="/dead-letters/nightly%3A2"' in page


def test_an_unknown_run_and_an_invalid_name_are_errors_in_words(read_only: Site):
    status, page = read_only.request("/runs/none")
    assert (status, "there is no bulk run" in page) == (404, True)
    assert "no bulk run" in json.loads(read_only.request("/api/runs/none")[1])["error"]
    status, page = read_only.request(f"/runs/{urllib.parse.quote(HOSTILE, safe='')}")
    assert (status, HOSTILE in page) == (400, False)


def test_values_of_a_run_are_escaped_in_html(acting: Site):
    hostile_request = {
        "key": HOSTILE,
        "keep": [HOSTILE],
        "method": HOSTILE,
        "input_": f"in:{HOSTILE.replace('/', '')}",
    }
    fields = {"error": HOSTILE, "version": HOSTILE, "chunks_failed": 1, "rows_failed": 1, f"reason:{HOSTILE}": 1}
    store_run(acting.redis, "nightly", "failure", run=hostile_request, **fields)
    failure = {"job": f"nightly:{HOSTILE}", "reason": HOSTILE, "message": HOSTILE}
    acting.redis.hset(KEYS.receipts("nightly"), f"!{HOSTILE}", json.dumps(failure))
    for path in ("/runs", "/runs/nightly"):
        status, page = acting.request(path)
        assert status == 200, page
        assert "document.title" in page
        assert not re.search(r"<script>document\.title", page)


def test_a_form_cancels_a_run_and_resumes_it(acting: Site):
    store_run(acting.redis, "nightly", "running", chunks=4, chunks_done=1)
    status, page = acting.submit_form("/runs/nightly", action="cancel")
    assert (status, "Cancelled." in page, state_of(acting)) == (200, True, b"cancelled")
    status, page = acting.submit_form("/runs/nightly", action="resume")
    assert (status, "Resumed." in page, state_of(acting)) == (200, True, b"planning")
    jobs = sum(acting.redis.llen(name) for name in KEYS.lists("bulk.churn"))
    assert jobs == 1  # the plan job
    store_run(acting.redis, "ready", "success")
    assert "Nothing changed: the run is success." in acting.submit_form("/runs/ready", action="cancel")[1]


def test_an_invalid_form_is_refused_and_changes_nothing(acting: Site):
    store_run(acting.redis, "nightly", "running")
    status, page = acting.submit_form("/runs/nightly", action="burn")
    assert (status, "cancel or resume" in page) == (400, True)
    assert acting.submit_form("/runs/none", action="cancel")[0] == 404
    assert acting.submit_form("/runs/none", action="resume")[0] == 404
    assert state_of(acting) == b"running"
    assert state_of(acting, "none") is None


def test_a_form_of_another_site_cancels_no_run(acting: Site):
    store_run(acting.redis, "nightly", "running")
    assert acting.request("/runs/nightly", form={"action": "cancel"})[0] == 403
    jar = CookieJar()
    token = re.search(r'name="_xsrf" value="([^"]+)"', acting.request("/runs/nightly", jar=jar)[1])
    assert token
    form, headers = {"action": "cancel", "_xsrf": token[1]}, {"Sec-Fetch-Site": "cross-site"}
    assert acting.request("/runs/nightly", form=form, jar=jar, headers=headers)[0] == 403
    assert state_of(acting) == b"running"
    assert acting.request("/runs/nightly", form=form, jar=jar)[0] == 200
    assert state_of(acting) == b"cancelled"


def test_read_only_mode_shows_no_button_and_cancels_no_run(read_only: Site, acting: Site):
    store_run(acting.redis, "nightly", "running")
    assert 'name="action"' in acting.request("/runs/nightly")[1]
    assert 'name="action"' not in read_only.request("/runs/nightly")[1]
    jar = CookieJar()
    token = re.search(r'name="_xsrf" value="([^"]+)"', acting.request("/runs/nightly", jar=jar)[1])
    assert token
    status, page = read_only.request("/runs/nightly", form={"action": "cancel", "_xsrf": token[1]}, jar=jar)
    assert (status, "--allow-actions" in page, state_of(acting)) == (403, True, b"running")
