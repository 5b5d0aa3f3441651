"""A scenario in which notifiers are killed, with workers and Redis, while they tell a receiver how jobs ended."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Sequence

from headrace.wire.keys import Keys
from headrace_worker.local.stack import Child
from tests.chaos.environment import Environment
from tests.chaos.kill_faults import SUSTAINABLE_LOAD
from tests.chaos.pairs import find_ended, run_pair
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
    with Receiver(answer) as receiver:

        def run_notifier(number: int) -> contextlib.AbstractContextManager[Child]:
            return running_notifier(
                env.url,
                env.folder,
                endpoint(receiver.url),
                name=f"notifier-{number}",
                HEADRACE_NOTIFY_SCHEDULE=_SCHEDULE,
                HEADRACE_NOTIFY_TIMEOUT="1",
                PYTHONPATH=PYTHONPATH,
            )

        with run_pair(env, run_notifier) as notifiers:
            with env.load(notify="orders", **SUSTAINABLE_LOAD):
                notifiers.kill_in_turn()
            keys = Keys(env.prefix)
            pending = (keys.notices, keys.notices_due, keys.notices_open)
            are_told = env.holds_within(lambda: not env.server.exists(*pending), _SETTLE_SECONDS)
            env.expect(are_told, "notices were left behind")
        notified = {job_of(name) for name in receiver.ids}
        notified |= {job_of(name.decode()) for name in env.server.hkeys(keys.dead) if b"." in name}
        finished = find_ended(env)
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
