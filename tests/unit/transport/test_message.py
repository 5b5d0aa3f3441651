"""A claim as a message to Celery."""

from __future__ import annotations

import pickle

from celery import Celery
from celery.worker.request import Request
from kombu import Connection

from headrace_worker.transport.claims import Claim, Lease
from headrace_worker.transport.message import Message, claim_message

CLAIM = Claim(
    lease=Lease(name="me/1", queue="predict.churn", origins=((1, 1),)), queued_messages=[b"\0" * 100_000]
)


def read_message() -> Message:
    """Return the message of the claim as the transport gives it to Celery."""
    with Connection("memory://") as connection:
        return Message(claim_message(CLAIM), channel=connection.channel())


def test_the_jobs_of_a_claim_go_to_the_pool_once() -> None:
    app = Celery(set_as_current=False)
    request = Request(read_message(), app=app, task=app.Task, hostname="worker")
    sent = pickle.dumps((request.request_dict, request.body))
    assert 100_000 < len(sent) < 105_000


def test_the_main_process_can_decode_a_claim() -> None:
    assert read_message().decode_claim() == CLAIM


def test_the_message_of_an_ordinary_task_is_no_claim() -> None:
    with Connection("memory://") as connection:
        message = Message(
            {
                "body": "W1sxXSwge30sIHt9XQ==",
                "content-type": "application/json",
                "content-encoding": "utf-8",
                "properties": {"delivery_tag": "1", "body_encoding": "base64"},
            },
            channel=connection.channel(),
        )
    assert message.payload == [[1], {}, {}]
    assert message.decode_claim() is None
