"""Scenarios with jobs that do harm, messages that are no jobs, and a worker that dies at a chosen step."""

from __future__ import annotations

import base64
import json
import time
from typing import Any

from headrace.wire.keys import queue_name
from tests.chaos import model, stock
from tests.chaos.arena import Arena
from tests.chaos.scenario import scenario
from tests.support.crash_points import STEPS

#: Jobs that share a batch with a poisonous one.
_MATES = 31
#: Seconds all is given to end where stock Celery goes round in circles.
_CIRCLES = 8.0
#: Bytes a pool process may have, and what a job that eats memory asks for.
_MEMORY, _EATEN = 1_500_000_000, 8_000_000_000


@scenario(
    4, "poison: a job that takes its process with it", long=4, short=2, control=3, limits={"time_limit": 3.0}
)
def poisoned(arena: Arena) -> None:
    """In a batch of 32 one job segfaults, kills its process, exits, or never ends: it dies, 31 succeed."""
    arena.start_workers(1)
    for do in (model.SEGFAULT, model.EXIT, model.KILL, model.LOOP)[: arena.times]:
        _poisoned_batch(arena, do, "timeout" if do == model.LOOP else "crash")


@scenario(5, "poison: memory and disk", long=3, control=1, scratch=8 * 2**20)
def starved(arena: Arena) -> None:
    """One job of 32 raises MemoryError, asks for more than the limit, or fills its disk: it alone fails."""
    (worker,) = arena.start_workers(1, HEADRACE_MEMORY_LIMIT=str(_MEMORY))
    for do, amount in ((model.NO_MEMORY, 0), (model.EAT, _EATEN), (model.FILL_DISK, 64 * 2**20))[: arena.times]:
        _poisoned_batch(arena, do, "permanent", amount)
    arena.expect(arena.system.name != "headrace" or worker.lives, "the worker's main process ended")


def _poisoned_batch(arena: Arena, do: int, reason: str, amount: float = 0) -> None:
    """A batch with one of the kind in the middle of it: held up until all of it waits, then let go."""
    mates = arena.jobs(_MATES)
    (poison,) = arena.jobs(1, do=do, amount=amount)
    arena.submit([*mates[:16], poison, *mates[16:]])
    ours = arena.system.name == "headrace"
    arena.settle_seconds = 60 if ours else _CIRCLES
    arena.can_wait(lambda: all(arena.outcome(job.id) for job in (poison, *mates)), arena.settle_seconds)
    runs = sum(run.job == poison.id for run in arena.runs())
    arena.notes.append(f"{model.WORDS[do]} ran {runs} times")
    if ours:
        outcome = arena.outcome(poison.id) or {}
        arena.expect(outcome.get("reason") == reason, f"{model.WORDS[do]} ended as {outcome.get('reason')}")
        well = sum((arena.outcome(job.id) or {}).get("status") == "SUCCESS" for job in mates)
        arena.expect(well == _MATES, f"{_MATES - well} batch-mates of {model.WORDS[do]} did not succeed")


@scenario(12, "garbage pushed by hand", long=3, control=2)
def garbage(arena: Arena) -> None:
    """Raw bytes that are no job, and messages for tasks and models that do not exist, amid a load."""
    (worker,) = arena.start_workers(1)
    ours = arena.system.name == "headrace"
    queue = queue_name(model.MODEL) if ours else stock.QUEUE
    pushed = 0
    with arena.load(rate=40):
        for n in range(arena.times):
            for raw in _garbage(n):
                arena.server.lpush(queue, raw)
                pushed += 1
            time.sleep(1)
    arena.settle_seconds = 60 if ours else _CIRCLES
    arena.settle()
    dead = arena.server.hlen("headrace:dead") - _failed(arena) if ours else arena.system.waiting(arena.server)
    arena.notes.append(f"{pushed} pushed, {dead} kept")
    if ours:
        arena.expect(dead == pushed, f"of {pushed} pieces of garbage {dead} are dead letters")
        arena.expect(worker.lives, "the worker ended")


def _failed(arena: Arena) -> int:
    """Jobs of the load that failed: they are dead letters too."""
    return sum(letter.startswith(b"job-") for letter in arena.server.hkeys("headrace:dead"))


def _garbage(number: int) -> list[bytes]:
    """Different bytes each time: the same bytes are the same letter."""
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


def _message(task: str, job: str, args: list[Any]) -> bytes:
    """A Celery message as any client could send it."""
    body = base64.b64encode(json.dumps([args, {}, {"callbacks": None}]).encode()).decode()
    about = {"delivery_mode": 2, "delivery_info": {"exchange": "", "routing_key": "x"}, "priority": 0}
    properties = {"correlation_id": job, "delivery_tag": job, "body_encoding": "base64", **about}
    headers = {"lang": "py", "task": task, "id": job, "root_id": job, "retries": 0}
    kind = {"content-encoding": "utf-8", "content-type": "application/json"}
    return json.dumps({"body": body, **kind, "headers": headers, "properties": properties}).encode()


@scenario(18, "a death at each step of a claim", long=1)
def death_at_each_step(arena: Arena) -> None:
    """The pool process, the main process, or all of a worker dies (-9) at each step from the claim to its end."""
    arena.start_workers(1)
    with arena.load(rate=50, longest=0.05):
        for step in STEPS:
            victims = [(arena.folder / f"died-{whom}-{step}", whom) for whom in ("self", "main", "all")]
            started = [
                arena.start_worker(
                    include="tests.support.crash_points", CRASH_AT=step, CRASH_PROCESS=whom, CRASH_FILE=str(file)
                )
                for file, whom in victims
            ]
            for (file, whom), worker in zip(victims, started, strict=True):
                arena.expect(arena.can_wait(file.exists, 20), f"nobody died at {step} ({whom})")
                arena.record_kill(arena.held(worker))
            for worker in started:
                arena.kill(worker)
    arena.notes.append(f"{3 * len(STEPS)} deaths, and of the worker each happened to")
