"""The page of a job in any state: what `headrace explain` tells, cancel and replay by form, the search box."""

from __future__ import annotations

import json
import re
import urllib.parse
from collections.abc import Iterator
from http.cookiejar import CookieJar

import pytest

from headrace import Client
from headrace.catalog.published import publish_contract
from headrace.wire.attempts import Attempt, decode_queued_message, encode_delayed
from headrace.wire.keys import Keys
from headrace.wire.outcome import Cancelled, Failure
from headrace.wire.parsing import parse
from tests.support.answering_worker import CHURN
from tests.support.explained_jobs import claim_jobs, make_execution, make_success, store_outcome
from tests.support.flower_site import Site
from tests.support.stored_dead_letters import make_letter, make_message, store_letter, stored_ids
from tests.support.stored_runs import store_run

KEYS = Keys()
HOSTILE = "<script>document.title = 'owned'</script>"


@pytest.fixture
def client(acting: Site) -> Iterator[Client]:
    """A client of the Redis of both sites, which has the model churn and nothing else."""
    publish_contract(acting.redis, KEYS, CHURN)
    address = acting.redis.connection_pool.connection_kwargs
    with Client(f"redis://{address['host']}:{address['port']}/0") as client:
        yield client


def status_of(site: Site, job: str) -> str:
    text: str = site.json(f"/api/jobs/{job}")["timeline"]["status"]
    return text


def test_a_waiting_and_a_delayed_job_are_shown_with_their_place(client: Client, read_only: Site, acting: Site):
    publish_contract(acting.redis, KEYS, CHURN)
    client.submit_many("churn", [{"age": 1}] * 2)
    waiting = client.submit("churn", {"age": 1}, metadata={"order": "A 17"})
    delayed = client.submit("churn", {"age": 1}, delay=3600)
    page = read_only.request(f"/jobs/{waiting.id}")[1]
    assert "2 jobs ahead of it" in page
    assert "A 17" not in page  # no text of the submitter's own
    page = read_only.request(f"/jobs/{delayed.id}")[1]
    assert re.search(r"submitted with a delay of (1 h|59 min)", page)  # from the moment its id was made
    message = acting.redis.lpop(KEYS.lists("predict.churn")[0])  # a worker that claims it too early delays it
    acting.redis.zadd(KEYS.delayed("predict.churn"), {encode_delayed(0, message): 1_900_000_000_000})
    assert "delayed until 2030-03-17 17:46:40 UTC" in read_only.request(f"/jobs/{delayed.id}")[1]
    history = read_only.json(f"/api/jobs/{waiting.id}")["timeline"]
    assert (history["status"], history["attempts"], history["model"]) == ("waiting", 0, "churn")


def test_a_running_job_is_shown_with_its_claim(client: Client, acting: Site):
    job, *_ = client.submit_many("churn", [{"age": 1}] * 3)
    claim_jobs(acting.redis, 3)
    page = acting.request(f"/jobs/{job.id}")[1]
    assert 'text-bg-primary">running<' in page
    assert "with 2 other jobs" in page
    assert acting.json(f"/api/jobs/{job.id}")["timeline"]["attempts"] == 1


def test_a_job_that_ended_before_flower_started_is_shown_with_version_attempts_and_size(
    client: Client, acting: Site
):
    job = client.submit("churn", {"age": 1})
    crash = Attempt(cause="crash", owner="host-9", at_ms=1_700_000_000_000, claim_size=2)
    store_outcome(acting.redis, make_success(job.id), make_execution(1_700_000_001_000, crash))
    page = acting.request(f"/jobs/{job.id}")[1]
    for text in ("<dt>Version</dt><dd>3</dd>", "<dt>Attempts</dt><dd>2</dd>", "with 63 other jobs"):
        assert text in page
    assert "attempt on host-9 with 1 other job failed: its process was lost" in page
    assert f"<dd>{acting.redis.strlen(KEYS.result(job.id))} bytes</dd>" in page
    assert "47118" not in page  # the prediction


def test_the_page_of_a_dead_job_has_its_error_and_replays_it_to_another_version(client: Client, acting: Site):
    for version in ("3", "4"):
        contract = {"model": "churn", "version": version}
        publish_contract(acting.redis, KEYS, type(CHURN)(input=CHURN.input, methods=CHURN.methods, **contract))
    store_letter(acting.redis, make_letter("dead", runs=5), make_message("dead", [{"age": 4711147}]))
    page = acting.request("/jobs/dead")[1]
    assert "permanent: ValueError" in page
    assert "model.py, line 7" in page
    assert "<dt>Attempts</dt><dd>5</dd>" in page
    assert "4711147" not in page
    assert "Replayed" in acting.submit_form("/jobs/dead", action="replay", version="4")[1]
    assert stored_ids(acting.redis)["dead"] == set()
    assert status_of(acting, "dead") == "waiting"
    queued = decode_queued_message(acting.redis.lindex(KEYS.retried("predict.churn")[0], 0))[1]
    assert parse(queued).to_job().version == "4"
    assert "Nothing changed" in acting.submit_form("/jobs/dead", action="replay")[1]


def test_a_form_cancels_a_waiting_job_and_leaves_an_ended_one(client: Client, acting: Site):
    job, finished = client.submit_many("churn", [{"age": 1}] * 2)
    store_outcome(acting.redis, make_success(finished.id))
    assert "Cancelled." in acting.submit_form(f"/jobs/{job.id}", action="cancel")[1]
    assert isinstance(job.outcome(timeout=20), Cancelled)
    assert "another outcome already" in acting.submit_form(f"/jobs/{finished.id}", action="cancel")[1]
    assert status_of(acting, finished.id) == "success"
    assert acting.submit_form(f"/jobs/{job.id}", action="burn")[0] == 400


def test_a_form_of_another_site_and_a_read_only_site_change_no_job(client: Client, acting: Site, read_only: Site):
    publish_contract(acting.redis, KEYS, CHURN)
    job = client.submit("churn", {"age": 1})
    jar, path = CookieJar(), f"/jobs/{job.id}"
    assert 'name="action"' not in read_only.request(path)[1]
    assert acting.request(path, form={"action": "cancel"})[0] == 403
    token = re.search(r'name="_xsrf" value="([^"]+)"', acting.request(path, jar=jar)[1])
    assert token
    form = {"action": "cancel", "_xsrf": token[1]}
    assert acting.request(path, form=form, jar=jar, headers={"Sec-Fetch-Site": "cross-site"})[0] == 403
    status, page = read_only.request(path, form=form, jar=jar)
    assert (status, "--allow-actions" in page) == (403, True)
    assert status_of(acting, job.id) == "waiting"


def test_an_unknown_job_is_not_found_in_words_and_an_impossible_id_is_refused(read_only: Site):
    status, page = read_only.request("/jobs/none")
    assert (status, "Redis has no such job" in page) == (404, True)
    assert read_only.request("/api/jobs/none")[0] == 404
    status, page = read_only.request(f"/jobs/{urllib.parse.quote(HOSTILE, safe='')}")
    assert (status, HOSTILE in page) == (400, False)
    assert read_only.request("/jobs/none", login=None)[0] == 401


def test_a_form_for_an_impossible_id_is_refused(acting: Site):
    status, page = acting.submit_form("/jobs/%3Cb%3E", action="cancel")
    assert (status, "a job&#39;s id is" in page or "a job&#x27;s id is" in page) == (400, True)


def test_the_search_box_of_every_page_leads_to_the_job_or_to_the_run(client: Client, acting: Site):
    job = client.submit("churn", {"age": 1})
    store_run(acting.redis, "nightly")
    for path in ("/workers", "/tasks", "/dead-letters", "/models", "/queues", "/runs", f"/jobs/{job.id}"):
        assert re.search(r'<form [^>]*action="/jobs"[^>]*>\s*<input[^>]*name="id"', acting.request(path)[1])
    assert f"…{job.id[-8:]}" in acting.request(f"/jobs?id=+{job.id}+")[1]
    assert f"…{job.id[-8:]}" in acting.request(f"/task/{job.id}")[1]
    assert (
        "Bulk run" in acting.request("/jobs?id=nightly")[1] or "nightly" in acting.request("/jobs?id=nightly")[1]
    )
    assert acting.request("/jobs")[0] == 200


def test_values_of_a_job_are_escaped(acting: Site):
    failure = Failure(job="a", reason="permanent", error=HOSTILE, module="m", message=HOSTILE)
    store_outcome(
        acting.redis,
        failure,
        make_execution(1_700_000_000_000, Attempt(cause=HOSTILE, owner=HOSTILE, at_ms=1, claim_size=1)),
    )
    store_letter(
        acting.redis,
        make_letter(
            "a", error=HOSTILE, message=HOSTILE, traceback=HOSTILE, model=HOSTILE, metadata={HOSTILE: HOSTILE}
        ),
        with_outcome=False,
    )
    status, page = acting.request("/jobs/a")
    assert (status, "document.title" in page, HOSTILE in page) == (200, True, False)
    assert json.loads(acting.request("/api/jobs/a")[1])["timeline"]["job"] == "a"
