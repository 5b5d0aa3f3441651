"""A scenario in which notifiers are killed, with workers and Redis, while they tell a receiver how jobs ended."""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Iterator, Sequence

from headrace.wire.keys import Keys
from headrace_worker.local.stack import Child
from tests.chaos.environment import Environment
from tests.chaos.kill_faults import SUSTAINABLE_LOAD, wait_for_two_ready
from tests.chaos.redis_faults import restart
from tests.chaos.scenario import scenario
from tests.chaos.workers import PYTHONPATH
from tests.support.webhooks import CUT, OK, Answer, Receiver, Request, endpoint, running_notifier

#: Seconds before each attempt: a receiver that fails at random takes every notice before the last one.
_SCHEDULE = ",".join(["0", *["0.2"] * 20])
#: Seconds until all notices must be delivered after the last fault: a claim of a killed notifier lasts 12.
_SETTLE_SECONDS = 60.0
#: Answers of a receiver that has trouble.
_TROUBLES = (Answer(500), CUT, Answer(429, (("Retry-After", "1"),)))


@scenario(27, "notifiers, workers and Redis killed while a receiver is told", long=12, short=1, lease=5.0)
def notifiers_killed(env: Environment) -> None:
    """One of two notifiers is killed (SIGKILL), then a worker, then Redis, while every tenth request is refused.

    Each outcome is told at least once under the id of its job, or its notice is a dead letter.
    """
    trouble = random.Random(env.random.randrange(2**31))

    def answer(_: Request, __: Sequence[Request]) -> Answer:
        return trouble.choice(_TROUBLES) if trouble.random() < 0.1 else OK

    env.start_workers(2)
    with Receiver(answer) as receiver, _notifiers(env, endpoint(receiver.url)) as notifiers:
        with env.load(notify="orders", **SUSTAINABLE_LOAD):
            for _ in range(env.repetitions):
                time.sleep(env.random.uniform(0.3, 2))
                notifiers.kill_one()
                env.kill(env.random.choice(wait_for_two_ready(env)))
                env.start_worker()
                time.sleep(env.random.uniform(0.3, 2))
                env.redis.kill()
                notifiers.kill_one()
                time.sleep(env.random.uniform(0, 1.5))
                restart(env)
            env.wait(lambda: env.ready_workers, "a worker")
        keys = Keys(env.prefix)
        pending = (keys.notices, keys.notices_due, keys.notices_open)
        env.expect(
            env.holds_within(lambda: not env.server.exists(*pending), _SETTLE_SECONDS), "notices were left behind"
        )
        notified = {job_of(name) for name in receiver.ids}
        notified |= {job_of(name.decode()) for name in env.server.hkeys(keys.dead) if b"." in name}
        finished = {key.decode().removeprefix(keys.result("")) for key in env.server.scan_iter(keys.result("*"))}
        env.expect(bool(finished), "no job has ended")
        env.expect(not finished - notified, f"never told: {sorted(finished - notified)[:5]}")
        env.expect(not notified - finished, f"told without an outcome: {sorted(notified - finished)[:5]}")
    env.notes.append(
        f"{2 * env.repetitions} notifiers, {env.repetitions} workers, {env.repetitions} times Redis; "
        f"{len(finished):,} outcomes told in {len(receiver.requests):,} requests"
    )


def job_of(notice: str) -> str:
    """Return the job of the id of a notice."""
    return notice.rpartition(".")[0]


class _Notifiers:
    """The notifiers of a scenario."""

    def __init__(self, env: Environment, endpoints: str, stack: contextlib.ExitStack) -> None:
        self._env, self._endpoints, self._stack = env, endpoints, stack
        self._children: list[Child] = []
        self._number = 0
        for _ in range(2):
            self._start()

    def _start(self) -> None:
        self._number += 1
        notifier = running_notifier(
            self._env.url,
            self._env.folder,
            self._endpoints,
            name=f"notifier-{self._number}",
            HEADRACE_NOTIFY_SCHEDULE=_SCHEDULE,
            HEADRACE_NOTIFY_TIMEOUT="1",
            PYTHONPATH=PYTHONPATH,
        )
        self._children.append(self._stack.enter_context(notifier))

    def kill_one(self) -> None:
        """Kill a random notifier, and start another."""
        child = self._children.pop(self._env.random.randrange(len(self._children)))
        child.check()
        child.process.kill()
        child.process.wait()
        self._start()


@contextlib.contextmanager
def _notifiers(env: Environment, endpoints: str) -> Iterator[_Notifiers]:
    """Run two notifiers."""
    with contextlib.ExitStack() as stack:
        yield _Notifiers(env, endpoints, stack)
