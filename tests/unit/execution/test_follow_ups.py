"""The follow-ups of a job are planned by Celery's own code, within limits, for queues that the worker may use."""

from __future__ import annotations

import base64
import json
from typing import Any

import msgspec
import pytest
import redis
from celery import Celery, chord, group, shared_task

from headrace.errors import InvalidInput
from headrace.wire.canvas import Canvas
from headrace.wire.keys import Keys
from headrace.wire.message import Job
from headrace.wire.outcome import Cancelled, Expired, Failure, Outcome, Prediction, Success
from headrace.wire.parsing import parse
from headrace.wire.signing import SIGNATURE_HEADER, JobKeys, Trust
from headrace_worker.execution.canvas_app import MAX_MESSAGES, CanvasApp
from headrace_worker.execution.claimed_job import ClaimedJob
from headrace_worker.execution.follow_ups import FollowUpPlanner, FollowUps

KEYS = JobKeys({"2026a": b"0123456789abcdef0123456789"})
SUCCESS = Success(job="a", prediction=Prediction(model="churn", version="1", predictions=[[2]]))
FAILURE = Failure(job="a", reason="permanent", error="ValueError", module="builtins", message="no")


@pytest.fixture(scope="module")
def client() -> Celery:
    """The app of a client. It sends nothing."""
    return Celery("client", set_as_current=False)


def never_connect() -> redis.Redis:
    raise AssertionError("planning needs no Redis")


def plan(
    outcome: Outcome = SUCCESS, *, queues: str = "*", signed: bool = False, prefix: str = "", **signatures: Any
) -> FollowUps:
    """Plan what follows a job with these signatures, each as it is in a message."""

    def refuse(task: str, failure: str) -> None:
        raise AssertionError((task, failure))

    app = CanvasApp(
        never_connect,
        Keys(prefix),
        queues=queues.split(","),
        job_keys=KEYS,
        ttl=60,
        store_failure=refuse,
    )
    canvas = msgspec.convert({**json.loads(json.dumps(signatures)), "signed": signed}, Canvas)
    claimed = ClaimedJob(Job(id="a", model="churn", instances=[]), b"", canvas=canvas)
    _, member = FollowUpPlanner(lambda: app).plan(claimed, outcome, 1)
    return msgspec.json.decode(member, type=FollowUps) if member else FollowUps(job="a", planned_ms=1)


def sent(follow_ups: FollowUps) -> list[tuple[str, str, list[Any]]]:
    """Return the list, the task and the arguments of each message."""
    messages = [(key, json.loads(message)) for key, message in follow_ups.messages]
    return [
        (key, message["headers"]["task"], json.loads(base64.b64decode(message["body"]))[0])
        for key, message in messages
    ]


RESULT = {"model": "churn", "version": "1", "predictions": [[2]]}


def test_a_callback_is_a_message_in_the_list_of_its_queue(client: Celery) -> None:
    callback = client.signature("store", args=[7], options={"queue": "shop", "priority": 5})
    assert sent(plan(callbacks=[callback], prefix="x:")) == [("x:shop\x06\x163", "store", [RESULT, 7])]


def test_a_callback_without_a_queue_goes_to_celerys_default_queue(client: Celery) -> None:
    assert sent(plan(callbacks=[client.signature("store")])) == [("celery", "store", [RESULT])]


def test_a_job_without_a_queue_goes_to_the_queue_of_its_model(client: Celery) -> None:
    link = client.signature("headrace.predict", kwargs={"model": "fraud@3"})
    assert sent(plan(chain=[link])) == [("predict.fraud", "headrace.predict", [RESULT])]


@pytest.mark.parametrize(("outcome", "states"), [(SUCCESS, "SUCCESS"), (FAILURE, "FAILURE")])
def test_success_and_failure_start_what_they_should(client: Celery, outcome: Outcome, states: str) -> None:
    callback, errback, link, body = (client.signature(name) for name in ("callback", "errback", "link", "body"))
    link.freeze("later")
    follow_ups = plan(
        outcome,
        callbacks=[callback],
        errbacks=[errback],
        chain=[link],
        chord=body,
        group="g",
        group_index=1,
    )
    tasks = [task for _, task, _ in sent(follow_ups)]
    assert tasks == (["callback", "link"] if outcome is SUCCESS else ["errback"])
    assert [task for task, _ in follow_ups.failures] == ([] if outcome is SUCCESS else ["later"])
    assert [(each.group, each.group_index, each.state) for each in follow_ups.chord_parts] == [("g", 1, states)]


@pytest.mark.parametrize("outcome", [Cancelled(job="a"), Expired(job="a")])
def test_a_job_that_never_ran_tells_its_chord_alone(client: Celery, outcome: Outcome) -> None:
    link = client.signature("link")
    follow_ups = plan(outcome, callbacks=[link], errbacks=[link], chain=[link], chord=link, group="g")
    assert (follow_ups.messages, follow_ups.failures) == ([], [])
    assert [each.state for each in follow_ups.chord_parts] == ["REVOKED"]


def test_a_failure_names_the_job_for_its_further_links(client: Celery) -> None:
    link = client.signature("link")
    link.freeze("later")
    ((task, failure),) = plan(FAILURE, chain=[link]).failures
    stored = json.loads(failure)
    assert (task, stored["status"], stored["task_id"], stored["failed_by"]) == ("later", "FAILURE", "later", "a")
    assert stored["result"] == {"exc_type": "ValueError", "exc_message": ["no"], "exc_module": "builtins"}


def test_a_chord_that_follows_is_prepared_with_its_messages(client: Celery) -> None:
    link = chord([client.signature("one"), client.signature("two")], client.signature("body"), app=client)
    follow_ups = plan(chain=[link])
    assert [task for _, task, _ in sent(follow_ups)] == ["one", "two"]
    ((key, size, seconds),) = follow_ups.values
    assert (key.startswith("celery-taskset-meta-"), key.endswith(".s"), size, seconds) == (True, True, "2", 60)


# --- where a worker may send to ---


@pytest.mark.parametrize(
    ("queues", "queue", "is_allowed"),
    [
        ("*", "shop", True),
        ("shop,predict.*", "shop", True),
        ("shop,predict.*", "predict.churn", True),
        ("shop,predict.*", "shops", False),
        ("", "shop", False),
        ("shop", "SHOP", False),
        *(
            ("*", queue, False)
            for queue in (
                "headrace:leases",
                "headrace.idle",
                "celery-task-meta-a",
                "celery-taskset-meta-a.j",
                "_kombu.binding.celery",
                "unacked",
                "unacked_index",
                "shop\x06\x163",
                "shop\n",
                "x" * 300,
            )
        ),
    ],
)
def test_a_worker_sends_to_the_queues_of_its_setting(
    client: Celery, queues: str, queue: str, is_allowed: bool
) -> None:
    callback = client.signature("store", options={"queue": queue})
    if is_allowed:
        assert len(plan(callbacks=[callback], queues=queues).messages) == 1
    else:
        with pytest.raises(InvalidInput, match="HEADRACE_CALLBACK_QUEUES"):
            plan(callbacks=[callback], queues=queues)


def test_the_tasks_of_a_group_and_of_a_header_are_checked_too(client: Celery) -> None:
    inner = client.signature("store", options={"queue": "other"})
    for signature in (group([inner], app=client), chord([inner], client.signature("body"), app=client)):
        with pytest.raises(InvalidInput, match="HEADRACE_CALLBACK_QUEUES"):
            plan(chain=[signature], queues="celery")


@pytest.mark.parametrize(
    "options",
    [
        {"headers": {"task": "headrace.claim"}},
        {"serializer": "pickle"},
        {"serializer": "yaml"},
        {"exchange": "celery", "routing_key": "celery"},
        {"connection": "redis://127.0.0.1:1"},
        {"producer": "x"},
        {"router": "x"},
        {"eta": "x", "countdown": "x"},
        {"stamped_headers": ["missing"]},
    ],
)
def test_options_that_no_client_sends_are_refused(client: Celery, options: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        plan(callbacks=[client.signature("store", options=options)])


@pytest.mark.parametrize("task", ["headrace.claim"])
def test_the_task_of_a_worker_itself_cannot_follow(client: Celery, task: str) -> None:
    with pytest.raises(InvalidInput, match="Headrace's own"):
        plan(callbacks=[client.signature(task)])


def test_no_task_runs_in_the_worker_itself(client: Celery) -> None:
    """Celery would call an errback that it knows at once, in the process of the failed task."""

    def take_over(request: Any, error: Any, traceback: Any) -> None:
        raise AssertionError((request, error, traceback))

    shared_task(take_over, name="shared")  # as a module does that a model imports
    errbacks = [client.signature(name) for name in ("celery.backend_cleanup", "shared")]
    assert [task for _, task, _ in sent(plan(FAILURE, errbacks=errbacks))] == ["celery.backend_cleanup", "shared"]


# --- limits ---


def nested(client: Celery, depth: int) -> Any:
    signature: Any = client.signature("leaf")
    for _ in range(depth):
        signature = chord([signature], client.signature("body"), app=client)
    return signature


def test_too_many_messages_are_refused(client: Celery) -> None:
    tasks = group([client.signature("store")] * (MAX_MESSAGES + 1), app=client)
    with pytest.raises(InvalidInput, match="more follows the job than 10,000 messages"):
        plan(chain=[tasks])


def test_signatures_that_refer_to_no_task_are_refused() -> None:
    for signature in ({}, {"task": None}, {"task": "a", "args": 5}, {"task": "a", "options": "x"}):
        with pytest.raises(InvalidInput, match="cannot be built"):
            plan(callbacks=[signature])


def test_chords_in_chords_are_planned(client: Celery) -> None:
    follow_ups = plan(chain=[nested(client, 5)])
    assert [task for _, task, _ in sent(follow_ups)] == ["leaf"]
    assert len(follow_ups.values) == 5


# --- signatures ---


def is_trusted(message: str, queue: str = "predict.fraud") -> bool:
    trust = Trust(keys=KEYS, required=True)
    headers = json.loads(message)["headers"]
    now = int(headers[SIGNATURE_HEADER].split(":")[1]) if SIGNATURE_HEADER in headers else 0
    return parse(message.encode(), trust, queue=queue, now=now).refusal is None


@pytest.mark.parametrize("signed", [True, False])
def test_a_job_that_follows_a_signed_job_is_signed(client: Celery, signed: bool) -> None:
    link = client.signature("headrace.predict", kwargs={"model": "fraud"})
    ((key, message),) = plan(chain=[link], signed=signed).messages
    assert (key, is_trusted(message)) == ("predict.fraud", signed)
    assert not is_trusted(message, "predict.churn")


def test_only_jobs_are_signed(client: Celery) -> None:
    ((_, message),) = plan(callbacks=[client.signature("store")], signed=True).messages
    assert SIGNATURE_HEADER not in json.loads(message)["headers"]


def test_links_of_a_chain_hold_the_rest_of_it(client: Celery) -> None:
    links: list[Any] = [client.signature(name) for name in ("third", "second")]
    ((_, message),) = plan(chain=links).messages
    _, _, embedded = json.loads(base64.b64decode(json.loads(message)["body"]))
    assert [link["task"] for link in embedded["chain"]] == ["third"]
