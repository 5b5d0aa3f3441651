"""Scenarios with poison jobs, malformed messages, and workers that are killed at a chosen step of a claim."""

from __future__ import annotations

import base64
import json
import time
from typing import Any

from headrace.wire.queues import queue_name
from tests.chaos import model, stock
from tests.chaos.environment import Environment
from tests.chaos.ledger import Ledger
from tests.chaos.scenario import scenario
from tests.support.crash_points import STEPS
from tests.support.decoding_bombs import BOMBS, marker_of

#: The other jobs in the batch of a poison job.
_BATCH_MATES = 31
#: Seconds to settle with stock Celery, which runs a poison job forever.
_STOCK_SETTLE_SECONDS = 8.0
#: The memory limit of a pool process, and the memory that a poison job allocates, in bytes.
_MEMORY_LIMIT, _ALLOCATION = 1_500_000_000, 8_000_000_000


@scenario(4, "poison: a job that crashes its process", long=4, short=2, control=3, limits={"time_limit": 3.0})
def crashing_job(env: Environment) -> None:
    """One job of a batch of 32 segfaults, kills its process, exits, or never ends. It fails, and 31 succeed."""
    env.start_workers(1)
    for do in (model.SEGFAULT, model.EXIT, model.KILL, model.LOOP)[: env.repetitions]:
        _run_poisoned_batch(env, do, "timeout" if do == model.LOOP else "crash")


@scenario(5, "poison: memory and disk", long=3, control=1, scratch=8 * 2**20)
def starving_job(env: Environment) -> None:
    """One job of 32 raises MemoryError, exceeds the memory limit, or fills its disk. It alone fails."""
    (worker,) = env.start_workers(1, HEADRACE_MEMORY_LIMIT=str(_MEMORY_LIMIT))
    for do, amount in ((model.NO_MEMORY, 0), (model.EAT, _ALLOCATION), (model.FILL_DISK, 64 * 2**20))[
        : env.repetitions
    ]:
        _run_poisoned_batch(env, do, "permanent", amount)
    env.expect(env.system.name != "headrace" or worker.is_alive, "the worker's main process ended")


def _run_poisoned_batch(env: Environment, do: int, reason: str, amount: float = 0) -> None:
    """Submit a batch with a poison job in the middle, and wait for its outcomes."""
    mates = env.jobs(_BATCH_MATES)
    (poison,) = env.jobs(1, do=do, amount=amount)
    env.submit([*mates[:16], poison, *mates[16:]])
    is_headrace = env.system.name == "headrace"
    env.settle_seconds = 60 if is_headrace else _STOCK_SETTLE_SECONDS
    env.holds_within(lambda: all(env.outcome(job.id) for job in (poison, *mates)), env.settle_seconds)
    runs = sum(run.job == poison.id for run in env.runs())
    env.notes.append(f"{model.NAMES[do]} ran {runs} times")
    if is_headrace:
        outcome = env.outcome(poison.id) or {}
        env.expect(outcome.get("reason") == reason, f"{model.NAMES[do]} ended as {outcome.get('reason')}")
        succeeded = sum((env.outcome(job.id) or {}).get("status") == "SUCCESS" for job in mates)
        env.expect(
            succeeded == _BATCH_MATES,
            f"{_BATCH_MATES - succeeded} batch-mates of {model.NAMES[do]} did not succeed",
        )


@scenario(32, "poison: a message that kills at decoding", long=5, short=1, limits={"time_limit": 3.0})
def decoding_message(env: Environment) -> None:
    """One message of a batch of 32 kills or hangs the process that decodes it, before a job is known.

    It is sent with an id and without one. It fails under its id, or becomes a dead letter, and 31 jobs succeed.
    """
    settings = {"HEADRACE_MEMORY_LIMIT": str(_MEMORY_LIMIT)}
    worker = env.start_worker(include="tests.support.decoding_bombs", **settings)
    env.wait(lambda: worker.is_ready, "a worker", 60)
    env.settle_seconds = 90
    for kind in [*BOMBS][: env.repetitions]:
        _run_batch_with_bomb(env, kind)
    env.expect(worker.is_alive, "the worker's main process ended")


def _run_batch_with_bomb(env: Environment, kind: str) -> None:
    """Push messages that kill at decoding amid a batch, and wait for all outcomes."""
    mates, (poison,) = env.jobs(_BATCH_MATES), env.jobs(1)
    message = _message("headrace.predict", poison.id, [model.MODEL, poison.rows], bomb=marker_of(kind))
    nameless = b"no id, " + marker_of(kind).encode()
    ledger = Ledger(env.folder / f"{poison.id}.ledger")
    ledger.write("submitted", [poison.id])
    env.submit(mates[:16])
    env.server.lpush(queue_name(model.MODEL), message, nameless)
    ledger.write("confirmed", [poison.id])
    ledger.close()
    env.submit(mates[16:])
    env.holds_within(lambda: all(env.outcome(job.id) for job in (poison, *mates)), env.settle_seconds)
    reason = (env.outcome(poison.id) or {}).get("reason")
    # A parser that raises MemoryError costs no process: the message is refused.
    expected = {"endless": "timeout", "memory": "bad input"}.get(kind, "crash")
    env.expect(reason == expected, f"{kind} at decoding ended as {reason}")
    succeeded = sum((env.outcome(job.id) or {}).get("status") == "SUCCESS" for job in mates)
    env.expect(succeeded == _BATCH_MATES, f"{_BATCH_MATES - succeeded} batch-mates of {kind} did not succeed")
    is_stored = env.holds_within(lambda: nameless in env.server.hvals("headrace:dead:messages"), 60)
    env.expect(is_stored, f"the message without an id is no dead letter ({kind})")
    env.notes.append(f"{kind} at decoding: {reason}")


@scenario(12, "malformed messages", long=3, control=2)
def malformed_messages(env: Environment) -> None:
    """Bytes that hold no job, and messages for unknown tasks and models, are pushed during a load."""
    (worker,) = env.start_workers(1)
    is_headrace = env.system.name == "headrace"
    queue = queue_name(model.MODEL) if is_headrace else stock.QUEUE
    pushed = 0
    with env.load(rate=40):
        for number in range(env.repetitions):
            for raw in _malformed(number):
                env.server.lpush(queue, raw)
                pushed += 1
            time.sleep(1)
    env.settle_seconds = 60 if is_headrace else _STOCK_SETTLE_SECONDS
    env.settle()
    dead = env.server.hlen("headrace:dead") - _failed_jobs(env) if is_headrace else env.system.waiting(env.server)
    env.notes.append(f"{pushed} pushed, {dead} stored")
    if is_headrace:
        env.expect(dead == pushed, f"of {pushed} malformed messages, {dead} are dead letters")
        env.expect(worker.is_alive, "the worker ended")


def _failed_jobs(env: Environment) -> int:
    """Return the number of failed jobs of the load, which are dead letters too."""
    return sum(letter.startswith(b"job-") for letter in env.server.hkeys("headrace:dead"))


def _malformed(number: int) -> list[bytes]:
    """Return malformed messages with different bytes for each number: equal bytes are one dead letter."""
    tag = f"{number}".encode()
    return [
        b"{not json " + tag,
        b"\x00\xff\xfe" + tag,
        b'{"no": "properties", "n": ' + tag + b"}",
        b"[" * 100_000 + tag,
        tag + b"x" * 20_000_000,
        _message("celery.shutdown", f"unknown-task-{number}", [1]),
        _message("headrace.predict", f"unknown-model-{number}", ["no-such-model", [[1, 2, 3]]]),
        _message("headrace.predict", f"no-arguments-{number}", []),
    ]


def _message(task: str, job: str, args: list[Any], **headers: Any) -> bytes:
    """Return a Celery message as any client may send it."""
    body = base64.b64encode(json.dumps([args, {}, {"callbacks": None}]).encode()).decode()
    delivery = {"delivery_mode": 2, "delivery_info": {"exchange": "", "routing_key": "x"}, "priority": 0}
    properties = {"correlation_id": job, "delivery_tag": job, "body_encoding": "base64", **delivery}
    headers = {"lang": "py", "task": task, "id": job, "root_id": job, "retries": 0, **headers}
    encoding = {"content-encoding": "utf-8", "content-type": "application/json"}
    return json.dumps({"body": body, **encoding, "headers": headers, "properties": properties}).encode()


@scenario(18, "kill at each step of a claim", long=1)
def kill_at_each_step(env: Environment) -> None:
    """The pool process, the main process, or all processes are killed (SIGKILL) at each step of a claim."""
    env.start_workers(1)
    with env.load(rate=50, longest=0.05):
        for step in STEPS:
            victims = [(env.folder / f"killed-{process}-{step}", process) for process in ("self", "main", "all")]
            started = [
                env.start_worker(
                    include="tests.support.crash_points",
                    CRASH_AT=step,
                    CRASH_PROCESS=process,
                    CRASH_FILE=str(file),
                )
                for file, process in victims
            ]
            for (file, process), worker in zip(victims, started, strict=True):
                env.expect(env.holds_within(file.exists, 20), f"no process was killed at {step} ({process})")
                env.record_kill(env.held(worker))
            for worker in started:
                env.kill(worker)
    env.notes.append(f"{3 * len(STEPS)} kills, each followed by a kill of the worker")
