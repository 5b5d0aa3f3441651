"""A notifier tells an endpoint how jobs ended, signed, and repeats what the endpoint did not take."""

from __future__ import annotations

import json

import pytest
from standardwebhooks import WebhookVerificationError

from headrace.outcome import Cancelled, Expired, Failure, Prediction, Success
from headrace.wire.keys import Keys
from tests.support.answering_worker import success
from tests.support.notify_site import Site
from tests.support.stored_notices import store_notice, stored_notices
from tests.support.waiting import wait_until
from tests.support.webhooks import (
    CUT,
    OK,
    OTHER_SECRET,
    SECRET,
    SILENT,
    Answer,
    Receiver,
    endpoint,
)

KEYS = Keys()


def failure(job: str) -> Failure:
    return Failure(job=job, reason="permanent", error="ValueError", module="builtins", message="the model cannot")


def test_every_way_a_job_ends_is_told_in_a_request_that_verifies(site: Site):
    with Receiver() as receiver, site.notifier(endpoint(receiver.url)):
        site.end_jobs("a")
        site.end_jobs("b", outcome=failure)
        site.end_jobs("c", outcome=lambda job: Cancelled(job=job))
        site.end_jobs("d", outcome=lambda job: Expired(job=job))
        wait_until(site.is_over)
    assert sorted(receiver.ids) == ["a.success", "b.failure", "c.cancelled", "d.expired"]
    types = {request.id: request.verify()["type"] for request in receiver.requests}
    assert types == {
        "a.success": "job.success",
        "b.failure": "job.failure",
        "c.cancelled": "job.cancelled",
        "d.expired": "job.expired",
    }
    data = {request.data["id"]: request.data for request in receiver.requests}
    assert data["a"] == {
        "id": "a",
        "model": "churn",
        "version": "3",
        "status": "success",
        "metadata": {"order": "a"},
    }
    assert (data["b"]["reason"], data["b"]["error"]) == ("permanent", "ValueError")
    assert "the model cannot" not in str([request.body for request in receiver.requests])
    assert site.letter_ids() == set()


def test_a_thousand_jobs_are_all_told(site: Site):
    ids = site.end_jobs(*(f"job-{number}" for number in range(1000)))
    with Receiver() as receiver, site.notifier(endpoint(receiver.url)):
        wait_until(site.is_over)
    assert set(receiver.ids) == ids
    assert len(receiver.ids) == len(ids)


@pytest.mark.parametrize(
    "answer",
    [
        Answer(500),
        Answer(404),
        Answer(503),
        Answer(429),
        Answer(302, (("Location", "/elsewhere"),)),
        Answer(307, (("Location", "/elsewhere"),)),
        CUT,
        SILENT,
    ],
    ids=["500", "404", "503", "429", "302", "307", "broken off", "nothing"],
)
def test_what_the_endpoint_did_not_take_is_sent_again_with_the_same_id_and_body(site: Site, answer):
    site.end_jobs("a")
    with (
        Receiver(lambda _, before: OK if before else answer) as receiver,
        site.notifier(endpoint(receiver.url), HEADRACE_NOTIFY_TIMEOUT="0.5"),
    ):
        wait_until(site.is_over)
        first, second = receiver.requests
    assert first.id == second.id == "a.success"
    assert first.path == second.path == "/hook"  # a redirect is not followed
    assert first.body == second.body
    assert first.verify() == second.verify()


def test_an_endpoint_that_is_down_is_told_when_it_is_up(site: Site):
    with Receiver() as receiver:
        url = receiver.url
    site.end_jobs("a")
    schedule = ",".join(["0.1"] * 40)
    with site.notifier(endpoint(url), HEADRACE_NOTIFY_SCHEDULE=schedule):
        wait_until(lambda: site.server.hget(KEYS.endpoints, "orders"))
        assert json.loads(site.server.hget(KEYS.endpoints, "orders"))["error"] == "not-reachable"
        with Receiver() as receiver:
            (site.folder / "notify.toml").write_text(endpoint(receiver.url))
            wait_until(site.is_over)
        assert receiver.ids == ["a.success"]


def test_a_receiver_that_is_gone_gets_no_second_request(site: Site):
    site.end_jobs("a")
    with Receiver(lambda *_: Answer(410)) as receiver:
        with site.notifier(endpoint(receiver.url)):
            wait_until(site.is_over)
        assert receiver.ids == ["a.success"]
    (letter,) = site.client.dead_letters.list()
    assert (letter.id, letter.job, letter.queue, letter.model) == ("a.success", "a", "headrace.notify", None)
    assert (letter.reason, letter.error, letter.metadata) == ("permanent", "http-410", {"order": "a"})
    assert [attempt.cause for attempt in letter.attempts] == ["error:http-410"]


def test_after_the_last_attempt_a_notice_is_a_dead_letter_with_all_attempts(site: Site):
    site.end_jobs("a")
    answers = iter([Answer(500), Answer(404), Answer(302)])
    with (
        Receiver(lambda *_: next(answers)) as receiver,
        site.notifier(endpoint(receiver.url), HEADRACE_NOTIFY_SCHEDULE="0,0,0"),
    ):
        wait_until(site.is_over)
    assert receiver.ids == ["a.success"] * 3
    (letter,) = site.client.dead_letters.list()
    assert (letter.reason, letter.error) == ("attempts exhausted", "http-302")
    assert [attempt.cause for attempt in letter.attempts] == ["error:http-500", "error:http-404", "error:http-302"]
    assert receiver.url not in str(letter)


@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_is_obeyed_and_costs_no_attempt(site: Site, status):
    site.end_jobs("a")
    busy = Answer(status, (("Retry-After", "1"),))
    moments = []

    def answer(request, before):
        moments.append(int(request.headers["webhook-timestamp"]))
        return OK if len(before) == 2 else busy

    with (
        Receiver(answer) as receiver,
        site.notifier(endpoint(receiver.url), HEADRACE_NOTIFY_SCHEDULE="0"),
    ):
        wait_until(site.is_over)
    assert receiver.ids == ["a.success"] * 3
    assert moments[0] < moments[1] < moments[2]
    assert site.letter_ids() == set()


def test_an_endpoint_that_asks_for_a_rest_gets_no_other_notice_meanwhile(site: Site):
    site.end_jobs("a")
    busy = Answer(429, (("Retry-After", "3600"),))
    with (
        Receiver(lambda *_: busy) as receiver,
        site.notifier(endpoint(receiver.url)),
    ):
        wait_until(lambda: receiver.ids == ["a.success"] and not site.count_due(1800))
        site.end_jobs("b")
        wait_until(lambda: not site.count_due(1800))
    assert receiver.ids == ["a.success"]
    attempts = {name: notice.attempts for name, notice in stored_notices(site.server).items()}
    assert ([attempt.cause for attempt in attempts["a.success"]], attempts["b.success"]) == (["requeued"], ())


def test_a_full_endpoint_gets_the_predictions_and_only_the_events_that_it_wants(site: Site):
    def predicted(job: str) -> Success:
        prediction = Prediction(model="churn", version="3", predictions=[[0.1, 0.9]], classes=("no", "yes"))
        return Success(job=job, prediction=prediction)

    with Receiver() as receiver:
        table = endpoint(receiver.url, full="true", events='["success"]', headers='{ Authorization = "Bearer x" }')
        with site.notifier(table):
            site.end_jobs("a", outcome=predicted)
            site.end_jobs("b", outcome=failure)
            wait_until(site.is_over)
    (request,) = receiver.requests
    assert (request.data["predictions"], request.data["classes"]) == ([[0.1, 0.9]], ["no", "yes"])
    assert request.headers["authorization"] == "Bearer x"
    assert request.headers["content-type"] == "application/json"
    assert site.letter_ids() == set()


def test_a_secret_is_rotated_without_a_request_that_the_receiver_refuses(site: Site):
    with Receiver() as receiver:
        path = site.folder / "notify.toml"
        with site.notifier(endpoint(receiver.url, secrets=[SECRET])):
            for job, secrets in (("a", [SECRET]), ("b", [OTHER_SECRET, SECRET]), ("c", [OTHER_SECRET])):
                path.write_text(endpoint(receiver.url, secrets=secrets))
                site.end_jobs(job)
                wait_until(site.is_over)
    requests = {request.id: request for request in receiver.requests}
    accepted = {(name, secret) for name, request in requests.items() for secret in (SECRET, OTHER_SECRET)
                if _verifies(request, secret)}  # fmt: skip
    assert accepted == {
        ("a.success", SECRET),
        ("b.success", SECRET),
        ("b.success", OTHER_SECRET),
        ("c.success", OTHER_SECRET),
    }


def _verifies(request, secret: str) -> bool:
    try:
        request.verify(secret)
    except WebhookVerificationError:
        return False
    return True


def test_an_endpoint_that_hangs_does_not_hold_up_the_others(site: Site):
    site.end_jobs(*(f"stuck-{number}" for number in range(200)), notify="stuck")
    site.end_jobs(*(f"job-{number}" for number in range(50)))
    with (
        Receiver(lambda *_: SILENT) as stuck,
        Receiver() as receiver,
        site.notifier(
            endpoint(receiver.url) + endpoint(stuck.url, "stuck"),
            HEADRACE_NOTIFY_TIMEOUT="30",
        ),
    ):
        wait_until(lambda: len(set(receiver.ids)) == 50)
        assert len(stuck.ids) <= 64
        stuck.release()


@pytest.mark.parametrize("notify", ["nobody", "Orders"])
def test_a_notice_for_no_endpoint_is_a_dead_letter_and_is_sent_when_its_name_is_one(site: Site, notify):
    site.end_jobs("a", notify=notify)
    with Receiver() as receiver, site.notifier(endpoint(receiver.url)):
        wait_until(site.is_over)
        (letter,) = site.client.dead_letters.list()
        assert (letter.id, letter.error, letter.reason) == ("a.success", "unknown-endpoint", "permanent")
        assert receiver.ids == []
        with (site.folder / "notify.toml").open("a") as file:
            file.write(endpoint(receiver.url, notify))
        assert site.client.dead_letters.replay(ids=["a.success"]).done == 1
        wait_until(lambda: receiver.ids == ["a.success"])


@pytest.mark.parametrize(
    "stored", [b"", b"{", b"\xff", b'{"job":"b","status":"success","at_ms":1,"record":{"m":"m"}}']
)
def test_what_is_no_notice_is_a_dead_letter_and_holds_up_nothing(site: Site, stored):
    store_notice(site.server, "bad", stored)
    site.end_jobs("good")
    with Receiver() as receiver, site.notifier(endpoint(receiver.url)):
        wait_until(site.is_over)
    assert receiver.ids == ["good.success"]
    (letter,) = site.client.dead_letters.list()
    assert (letter.is_malformed, site.client.dead_letters.show(letter.id).payload) == (True, stored)
    assert site.client.dead_letters.replay(ids=[letter.id]).malformed == 1
    assert site.client.dead_letters.purge(ids=[letter.id]).done == 1


def test_an_outcome_that_a_plain_celery_worker_stored_is_told_after_a_sweep(site: Site):
    site.client.submit("churn", instances=[{"age": 41}], id="a", notify="orders")
    site.server.set(KEYS.result("a"), json.dumps({"status": "SUCCESS", "result": 1, "task_id": "a"}))
    with (
        Receiver() as receiver,
        site.notifier(endpoint(receiver.url), HEADRACE_NOTIFY_SWEEP="0.1"),
    ):
        wait_until(site.is_over)
    assert receiver.ids == ["a.success"]


def test_an_outcome_that_its_reader_has_forgotten_is_told_without_what_is_gone(site: Site):
    site.end_jobs("a", outcome=success)
    site.server.delete(KEYS.result("a"), KEYS.job("a"))
    with Receiver() as receiver, site.notifier(endpoint(receiver.url, full="true")):
        wait_until(site.is_over)
    (request,) = receiver.requests
    assert (request.data["version"], request.data["predictions_omitted"]) == (None, "gone")
    assert request.data["metadata"] == {"order": "a"}
