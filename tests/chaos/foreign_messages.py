"""A scenario with the messages of other clients, readable or not, amid the load and the kills of workers.

Each form is tried with a job of its own. What a worker can read ends in the job's predictions; where an id can be
read, the rest ends as a failure under that id; bytes without an id become dead letters.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import msgspec
from celery import Celery, signature

from headrace.wire.keys import Keys
from headrace.wire.queues import priority_index, queue_name
from tests.chaos import model
from tests.chaos.environment import Environment
from tests.chaos.jobs import Job
from tests.chaos.kill_faults import SUSTAINABLE_LOAD, wait_for_two_ready
from tests.chaos.ledger import Ledger
from tests.chaos.scenario import scenario
from tests.support.foreign_clients import (
    COMPRESSIONS,
    READ_COMPRESSIONS,
    SERIALIZERS,
    TASK,
    gocelery_message,
    register_missing_codecs,
)

_QUEUE = queue_name(model.MODEL)
_UNUSED_LIST = Keys().lists(queue_name(model.SINGLE_MODEL))[priority_index(6)]


class _Form(msgspec.Struct, frozen=True, kw_only=True):
    """A form of a message."""

    name: str
    #: Sends the message of a job.
    send: Callable[[Environment, Job], Any]
    #: True if workers read it.
    is_read: bool


@scenario(20, "messages of other clients", long=30, short=2)
def foreign_messages(env: Environment) -> None:
    """Messages of every form that Celery clients write, and hostile ones, arrive while workers are killed.

    A list of another queue of the same workers is of another type meanwhile.
    """
    env.start_workers(2 if env.lease < env.requirements.lease else 3)
    forms, sent, nameless = _forms(), dict[str, _Form](), set[bytes]()
    ledger = Ledger(env.folder / "foreign.ledger")
    with env.load(**SUSTAINABLE_LOAD):
        for number in range(env.repetitions):
            for form, job in zip(forms, env.jobs(len(forms)), strict=True):
                ledger.write("submitted", [job.id])
                form.send(env, job)
                ledger.write("confirmed", [job.id])
                sent[job.id] = form
            for message in _nameless(number):
                env.server.lpush(_QUEUE, message)
                nameless.add(message)
            # A list of the other queue, in which no job is, becomes a text for a while.
            env.server.set(_UNUSED_LIST, "no list")
            env.kill(env.random.choice(wait_for_two_ready(env)))
            env.start_worker()
            time.sleep(env.random.uniform(0.2, 2))
            env.server.delete(_UNUSED_LIST)
    ledger.close()
    env.settle_seconds = 120
    env.settle()
    _check(env, sent, nameless)


def _check(env: Environment, sent: dict[str, _Form], nameless: set[bytes]) -> None:
    """Compare the outcome of each job with its form, and the dead letters with the bytes that hold no id."""
    wrong: dict[str, int] = {}
    for job, form in sent.items():
        status = (env.outcome(job) or {}).get("status")
        if status != ("SUCCESS" if form.is_read else "FAILURE"):
            wrong[f"{form.name} ended as {status}"] = wrong.get(f"{form.name} ended as {status}", 0) + 1
    for description, count in wrong.items():
        env.expect(False, f"{description}, {count} times")
    messages: dict[bytes, bytes] = env.server.hgetall("headrace:dead:messages")  # type: ignore[assignment]  # bytes
    stored = {message for letter, message in messages.items() if letter.startswith(b"malformed-")}
    env.expect(stored == nameless, f"{len(nameless - stored)} messages without an id are no dead letters")
    read = sum(form.is_read for form in sent.values())
    env.notes.append(
        f"{len(_forms())} forms: {read} messages were read, {len(sent) - read} refused under their id, "
        f"{len(nameless)} held no id"
    )


def _forms() -> list[_Form]:
    """Return every form in which a message with an id may arrive."""
    register_missing_codecs()
    forms = [
        _Form(
            name=f"{serializer}, {compression}, protocol {protocol}",
            send=_celery(task_protocol=protocol, serializer=serializer, compression=compression),
            is_read=serializer == "json" and compression in READ_COMPRESSIONS,
        )
        for serializer in SERIALIZERS
        for compression in COMPRESSIONS
        for protocol in (1, 2)
    ]
    every_step = {"priority_steps": list(range(10)), "sep": ":"}
    read: dict[str, Callable[[Environment, Job], Any]] = {
        "ten priority steps": _celery(priority=5, broker_transport_options=every_step),
        "gocelery": lambda env, job: env.server.lpush(_QUEUE, _gocelery(job)),
        "priority as text": _raw(lambda message: message["properties"].update(priority="9")),
        "no kwargs": _raw(lambda _: None, kwargs=None),
        "named arguments": _celery(args=[], name_arguments=True),
        "the callback of a job": _send_callback,
    }
    refused: dict[str, Callable[[Environment, Job], Any]] = {
        "mistyped task": _celery(task="headrace.predcit"),
        "another model": _celery(model_name=model.SINGLE_MODEL),
        "NaN": _celery(row=[float("nan"), 0, 0]),
        "time limit": _celery(time_limit=30),
        "unknown option": _celery(kwargs={"verison": "1"}),
        "the task of a claim": _celery(task="headrace.claim"),
        "deep": _raw(lambda _: None, instances="[" * 50_000),
        "millions of values": _raw(lambda _: None, instances=f"[{'[],' * 2_700_000}[]]"),
        "lone surrogate": _raw(lambda _: None, instances='[["\\ud800", 0, 0]]'),
        "no arguments": _celery(args=[]),
    }
    forms += [_Form(name=name, send=send, is_read=True) for name, send in read.items()]
    return forms + [_Form(name=name, send=send, is_read=False) for name, send in refused.items()]


def _celery(
    *,
    task: str = TASK,
    model_name: str = model.MODEL,
    args: list[Any] | None = None,
    row: list[float] | None = None,
    name_arguments: bool = False,
    task_protocol: int = 2,
    broker_transport_options: dict[str, Any] | None = None,
    **options: Any,
) -> Callable[[Environment, Job], Any]:
    """Return a function that sends a job by a plain Celery app."""

    def send(env: Environment, job: Job) -> None:
        rows = [row] if row else job.rows
        sent_args = [model_name, rows] if args is None else args
        kwargs = {"model": model_name, "instances": rows} if name_arguments else options.get("kwargs")
        more = {name: value for name, value in options.items() if name != "kwargs"}
        with Celery(broker=env.url, backend=env.url, set_as_current=False) as app:
            app.conf.task_protocol = task_protocol
            app.conf.broker_transport_options = broker_transport_options or {}
            app.send_task(task, args=sent_args, kwargs=kwargs, task_id=job.id, queue=_QUEUE, **more)

    return send


def _send_callback(env: Environment, job: Job) -> None:
    """Send a job as the callback of another, which the scenario submits."""
    (parent,) = env.jobs(1)
    with Celery(broker=env.url, backend=env.url, set_as_current=False) as app:
        link = signature(TASK, args=[model.MODEL, job.rows], task_id=job.id, queue=_QUEUE, immutable=True, app=app)
        ledger = Ledger(env.folder / f"{parent.id}.ledger")
        ledger.write("submitted", [parent.id])
        app.send_task(TASK, args=[model.MODEL, parent.rows], task_id=parent.id, queue=_QUEUE, link=link)
        ledger.write("confirmed", [parent.id])
        ledger.close()


def _raw(
    change: Callable[[dict[str, Any]], Any], *, instances: str | None = None, kwargs: Any = ...
) -> Callable[[Environment, Job], Any]:
    """Return a function that pushes the bytes of a message. `instances` are JSON, valid or not."""

    def send(env: Environment, job: Job) -> None:
        options = json.dumps({} if kwargs is ... else kwargs)
        rows = json.dumps(job.rows) if instances is None else instances
        message = {
            "body": f'[["{model.MODEL}", {rows}], {options}, null]',
            "content-encoding": "utf-8",
            "content-type": "application/json",
            "headers": {"lang": "py", "task": TASK, "id": job.id, "root_id": job.id, "retries": 0},
            "properties": {
                "correlation_id": job.id,
                "delivery_mode": 2,
                "delivery_info": {"exchange": "", "routing_key": _QUEUE},
                "priority": 0,
                "delivery_tag": job.id,
            },
        }
        change(message)
        env.server.lpush(_QUEUE, json.dumps(message))

    return send


def _gocelery(job: Job) -> bytes:
    return gocelery_message(0, job.id, args=[model.MODEL, job.rows])


def _nameless(number: int) -> list[bytes]:
    """Return messages without an id, with different bytes for each number: equal bytes are one dead letter."""
    tag = f"{number}".encode()
    return [
        b"garbage " + tag,
        b"\x00\xff\xfe" + tag,
        b"[" * 100_000 + tag,
        b'{"body": "' + b"W10s" * 100_000 + b'", "n": ' + tag + b"}",
        b"\x01" + b"a" * 40_000 + b";\n" + tag,
        b"\x01crash,worker,1,1\n\x01crash,worker,2,1\n\nno message " + tag,
        tag + b"x" * 9_000_000,
    ]
