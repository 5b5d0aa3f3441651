"""Jobs in a canvas of Celery: whatever is linked to a job, follows it, whichever client sent it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest
from celery import chain, chord, group
from celery.exceptions import ChordError

from headrace import Client, InvalidInput
from tests.support.canvas_site import CanvasSite, predict, row
from tests.support.canvas_tasks import app, fail, fail_own, kind, predictions, record, rows, total
from tests.support.claim_models import KILL, SLEEP, UNREACHABLE
from tests.support.waiting import wait_until

TIMEOUT = 30


@pytest.fixture(scope="module")
def site(canvas: CanvasSite) -> Iterator[CanvasSite]:
    with canvas.headrace_worker():
        yield canvas


@pytest.fixture
def key() -> str:
    """The list to which the task `record` appends."""
    return f"recorded-{uuid4()}"


def error_of(sent: Any) -> Any:
    """Return the error that a task ended with; `get` would raise the error of a task before it."""
    return sent.get(timeout=TIMEOUT, propagate=False)


def result(*values: Any, model: str = "doubling") -> dict[str, Any]:
    return {"model": model, "version": "1", "predictions": list(values)}


def test_a_callback_gets_the_result_of_the_job(site: CanvasSite, key: str) -> None:
    predict("doubling", [row(4)]).apply_async(link=record.s(key=key))
    wait_until(lambda: site.recorded(key) == [result(8.0)])


def test_every_callback_runs(site: CanvasSite, key: str) -> None:
    predict("doubling", [row(4)]).apply_async(link=[record.s(key=key), record.si("own", key=key)])
    wait_until(lambda: len(site.recorded(key)) == 2)
    assert sorted(map(str, site.recorded(key))) == sorted(map(str, [result(8.0), "own"]))


# --- chains ---


def test_a_job_in_the_middle_of_a_chain_predicts_on_the_instances_before_it(site: CanvasSite) -> None:
    chained = chain(rows.s(1, 2), predict(model="doubling"), predictions.s()).apply_async()
    assert chained.get(timeout=TIMEOUT) == [2.0, 4.0]


def test_a_job_that_is_first_in_a_chain_hands_its_result_on(site: CanvasSite) -> None:
    chained = chain(predict("doubling", [row(3)]), predictions.s(), app=app).apply_async()
    assert chained.get(timeout=TIMEOUT) == [6.0]


def test_a_job_that_is_last_in_a_chain_ends_it(site: CanvasSite) -> None:
    chained = chain(rows.s(5), predict(model="doubling")).apply_async()
    assert chained.get(timeout=TIMEOUT) == result(10.0)


def test_a_job_predicts_on_the_predictions_of_the_job_before_it(site: CanvasSite) -> None:
    chained = chain(predict("rows", [row(5)]), predict(model="rows"), predict(model="doubling"), app=app)
    assert chained.apply_async().get(timeout=TIMEOUT) == result(40.0)


def test_a_job_with_named_instances_leaves_the_result_before_it_unused(site: CanvasSite) -> None:
    later = predict(model="doubling", instances=[row(7)])
    assert chain(rows.s(5), later).apply_async().get(timeout=TIMEOUT) == result(14.0)


def test_an_immutable_job_has_its_own_arguments(site: CanvasSite) -> None:
    later = predict("doubling", [row(7)], immutable=True)
    later.set(queue="predict.doubling")
    assert chain(rows.s(5), later).apply_async().get(timeout=TIMEOUT) == result(14.0)


def test_the_results_of_a_chain_know_their_parents_and_children(site: CanvasSite) -> None:
    last = chain(rows.s(5), predict(model="doubling"), predictions.s()).apply_async()
    assert last.get(timeout=TIMEOUT) == [10.0]
    job, first = last.parent, last.parent.parent
    assert [child.id for child in first.children] == [job.id]
    assert [child.id for child in job.children] == [last.id]
    meta = app.backend.get_task_meta(job.id, cache=False)
    assert (meta["parent_id"], meta["children"]) == (first.id, [[[last.id, None], None]])
    assert [value for _, value in first.collect(timeout=TIMEOUT)] == [[[5, 0, 0]], result(10.0), [10.0]]


# --- groups and chords ---


def test_jobs_of_a_group_know_their_group(site: CanvasSite) -> None:
    sent = group([predict("doubling", [row(value)]) for value in range(5)], app=app).apply_async()
    assert sent.get(timeout=TIMEOUT) == [result(2.0 * value) for value in range(5)]
    assert {app.backend.get_task_meta(child.id, cache=False)["group_id"] for child in sent} == {sent.id}


def test_a_group_of_jobs_is_the_header_of_a_chord(site: CanvasSite) -> None:
    header = [predict("doubling", [row(value)]) for value in range(10)]
    assert chord(header, total.s(), app=app).apply_async().get(timeout=TIMEOUT) == 90.0
    assert (group(header, app=app) | total.s()).apply_async().get(timeout=TIMEOUT) == 90.0


def test_values_with_a_type_of_kombus_own_reach_the_tasks_that_follow(site: CanvasSite, key: str) -> None:
    moment = datetime(2030, 1, 31, tzinfo=UTC)
    body = kind.si(moment)
    chained = chain(predict("doubling", [row(1)]), kind.si(moment), app=app)
    assert chained.apply_async().get(timeout=TIMEOUT) == "datetime"
    assert (
        chord([predict("doubling", [row(1)])] * 2, body, app=app).apply_async().get(timeout=TIMEOUT) == "datetime"
    )


def test_a_job_is_the_body_of_a_chord(site: CanvasSite) -> None:
    header = [rows.s(1), rows.s(2)]
    body = chord(header, predict(model="doubling", instances=[row(8)]), app=app).apply_async()
    assert body.get(timeout=TIMEOUT) == result(16.0)


def test_a_job_starts_a_chord_of_jobs_whose_body_is_a_job(site: CanvasSite) -> None:
    jobs = group([predict(model="doubling"), predict(model="rows")], app=app)
    canvas = chain(
        predict("rows", [row(1)]), jobs, record.si("both", key="unused"), rows.si(9), predict(model="doubling")
    )
    assert canvas.apply_async().get(timeout=TIMEOUT) == result(18.0)


def test_chords_of_jobs_may_be_nested(site: CanvasSite) -> None:
    def inner(value: float) -> Any:
        chained = chain(rows.s(value), predict(model="rows"), app=app)
        return chord([chained, rows.s(1)], predict(model="doubling", instances=[row(value)]), app=app)

    assert chord([inner(1), inner(2)], total.s(), app=app).apply_async().get(timeout=TIMEOUT) == 6.0


def test_groups_that_follow_each_other_are_chords_of_chords(site: CanvasSite) -> None:
    first = group([predict("doubling", [row(1)]), predict("doubling", [row(2)])], app=app)
    second = group([record.si(3, key="unused"), predict("doubling", [row(4)], immutable=True)], app=app)
    sent = chain(predict("rows", [row(1)]), first.clone(), app=app)
    assert sent
    immutable = group([task.clone().set(immutable=True) for task in first.tasks], app=app)
    canvas = chain(predict("rows", [row(1)]), immutable, second, record.s(key="unused"))
    assert canvas.apply_async().get(timeout=TIMEOUT) == [3, result(8.0)]


# --- failures ---


def test_a_failure_starts_the_errbacks_with_the_id_of_the_job(site: CanvasSite, key: str) -> None:
    sent = predict("doubling", [["text"]]).apply_async(
        link=record.s(key=f"{key}-not"), link_error=record.s(key=key)
    )
    wait_until(lambda: site.recorded(key) == [sent.id])
    assert sent.state == "FAILURE"
    assert site.recorded(f"{key}-not") == []


def test_a_job_with_invalid_arguments_starts_its_errbacks(site: CanvasSite, key: str) -> None:
    sent = predict("doubling", "no list").apply_async(link_error=record.s(key=key))
    wait_until(lambda: site.recorded(key) == [sent.id])


def test_the_failure_of_a_job_fails_the_rest_of_its_chain(site: CanvasSite) -> None:
    last = chain(
        predict("doubling", [["text"]]), predict(model="doubling"), predictions.s(), app=app
    ).apply_async()
    assert isinstance(error_of(last), InvalidInput)
    assert isinstance(error_of(last.parent), InvalidInput)


def test_the_failure_of_a_job_in_a_header_fails_the_body_of_the_chord(site: CanvasSite, key: str) -> None:
    body = total.s().on_error(record.s(key=key))
    sent = chord([predict("doubling", [row(1)]), predict("doubling", [["text"]])], body, app=app).apply_async()
    assert isinstance(error_of(sent), ChordError)
    wait_until(lambda: site.recorded(key) == [sent.id])


def test_a_task_before_a_job_that_fails_fails_the_job(site: CanvasSite) -> None:
    last = chain(fail.s(), predict(model="doubling")).apply_async()
    with pytest.raises(ValueError, match="expected"):
        last.get(timeout=TIMEOUT)


def test_the_failure_of_a_header_fails_a_job_that_is_the_body(site: CanvasSite) -> None:
    sent = chord([predict("doubling", [["text"]])] * 2, predict(model="doubling"), app=app).apply_async()
    assert isinstance(error_of(sent), ChordError)


def test_the_error_of_a_task_keeps_its_class_where_it_fails_the_jobs_of_a_group(site: CanvasSite) -> None:
    header = [fail_own.si(), predict("doubling", [row(1, SLEEP, 2)])]
    sent = chord(header, group(total.s(), total.s()), app=app).apply_async()
    for failed in sent.results:
        error_of(failed)
        stored = json.loads(str(site.server.get(f"celery-task-meta-{failed.id}")))["result"]
        assert (stored["exc_module"], stored["exc_type"]) == ("tests.support.canvas_errors", "OwnError")


def test_an_expired_job_in_a_header_fails_the_chord_and_starts_no_errback(site: CanvasSite, key: str) -> None:
    expired = predict("doubling", [row(1)]).set(expires=-1, link_error=[record.s(key=key)])
    sent = chord([expired, predict("doubling", [row(1)])], total.s(), app=app).apply_async()
    assert "TaskRevokedError" in repr(error_of(sent))
    assert site.recorded(key) == []


def test_a_cancelled_job_in_a_header_fails_the_chord(site: CanvasSite) -> None:
    delayed = predict("doubling", [row(1)]).set(countdown=2)
    sent = chord([delayed, predict("doubling", [row(1)])], total.s(), app=app).apply_async()
    with Client(site.redis.url, check=False) as client:
        assert client.job(sent.parent.results[0].id).cancel(unknown=True)
    assert "TaskRevokedError" in repr(error_of(sent))


def test_a_job_cancelled_while_it_runs_fails_its_chord(site: CanvasSite) -> None:
    running = predict("doubling", [row(1, SLEEP, 2.0)])
    sent = chord([running, predict("rows", [row(1)])], total.s(), app=app).apply_async()
    wait_until(sent.parent.results[1].ready)
    with Client(site.redis.url, check=False) as client:
        assert client.job(sent.parent.results[0].id).cancel(unknown=True)
    assert "TaskRevokedError" in repr(error_of(sent))


def test_a_retried_job_starts_its_callbacks_once_when_it_succeeds(site: CanvasSite, key: str) -> None:
    sent = predict("patient", [row(3, UNREACHABLE, time.time() + 1.0)])
    sent.apply_async(link=record.s(key=key), link_error=record.s(key=f"{key}-error"))
    wait_until(lambda: site.recorded(key) == [result(6.0, model="patient")])
    assert site.recorded(f"{key}-error") == []


def test_a_replayed_job_that_succeeds_runs_the_rest_of_its_chain(site: CanvasSite, key: str) -> None:
    """The first failure is the outcome of the further links too, until the replay."""
    reachable_at = time.time() + 3.0
    first = predict("hasty", [row(3, UNREACHABLE, reachable_at)])
    last = chain(first, rows.si(4), predict(model="doubling"), record.s(key=key)).apply_async()
    assert isinstance(error_of(last), ConnectionResetError)
    time.sleep(max(0, reachable_at - time.time()))
    with Client(site.redis.url) as client:
        assert client.dead_letters.replay(ids=[last.parent.parent.parent.id]).done == 1
    wait_until(lambda: site.recorded(key) == [result(8.0)])
    wait_until(lambda: app.AsyncResult(last.id).state == "SUCCESS")
    assert app.AsyncResult(last.parent.id).get() == result(8.0)
    wait_until(lambda: site.server.zcard("headrace:follow-ups") == 0)


def test_a_job_that_kills_its_process_starts_its_errbacks_and_fails_its_chord(site: CanvasSite, key: str) -> None:
    """Its message is not opened again after its attempts; what follows it is read all the same."""
    job = predict("doubling", [row(1, KILL)]).set(link_error=[record.s(key=key)])
    sent = chord([job, predict("rows", [row(1)])], total.s(), app=app).apply_async()
    assert "WorkerLostError" in repr(error_of(sent))
    wait_until(lambda: site.recorded(key) == [sent.parent.results[0].id])


# --- what cannot follow ---


def test_a_callback_that_is_no_signature_fails_the_job_and_says_so(site: CanvasSite) -> None:
    sent = app.send_task("headrace.predict", args=["doubling", [row(1)]], link=["no signature"])
    with pytest.raises(Exception, match="callbacks, chain, chord or group of the job are invalid"):
        sent.get(timeout=TIMEOUT)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"queue": "headrace:isolated:predict.doubling"}, "may not send"),
        ({"queue": "celery\x06\x163"}, "may not send"),
        ({"exchange": "other", "routing_key": "celery"}, "names the exchange"),
        ({"serializer": "pickle"}, "not JSON"),
        ({"headers": {"task": "headrace.claim"}}, "Headrace's own"),
        ({"connection": "redis://127.0.0.1:1/0"}, "cannot be built"),
    ],
)
def test_a_callback_may_not_go_where_no_task_belongs(
    site: CanvasSite, key: str, options: dict[str, Any], reason: str
) -> None:
    callback = record.s(key=key).set(**options)
    sent = predict("doubling", [row(1)]).apply_async(link=callback, link_error=record.s(key=f"{key}-error"))
    with pytest.raises(Exception, match=reason):
        sent.get(timeout=TIMEOUT)
    wait_until(lambda: site.recorded(f"{key}-error") == [sent.id])
    assert site.recorded(key) == []


def test_a_failure_with_errbacks_that_cannot_be_sent_still_fails_its_chord(site: CanvasSite, key: str) -> None:
    job = predict("doubling", [["text"]]).set(link_error=[record.s(key=key).set(queue="headrace:dead")])
    sent = chord([job, predict("doubling", [row(1)])], total.s(), app=app).apply_async()
    assert isinstance(error_of(sent), ChordError)


def test_what_follows_a_job_cannot_fail_a_job_that_was_submitted_on_its_own(site: CanvasSite) -> None:
    with Client(site.redis.url, check=False) as client:
        victim = client.submit("doubling", row(1), delay=2)
        forged = predict("doubling", [row(1)]).set(task_id=victim.id)
        attack = chain(predict("doubling", [["text"]]), forged, app=app).apply_async()
        wait_until(lambda: attack.parent.state == "FAILURE")
        assert victim.result(timeout=TIMEOUT).prediction == 2.0
