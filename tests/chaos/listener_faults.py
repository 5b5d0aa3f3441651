"""A scenario in which listeners are killed, with workers and Redis, while they handle the ends of jobs."""

from __future__ import annotations

import time
from collections import Counter
from types import TracebackType
from typing import Self

import msgspec

from headrace.wire.keys import Keys
from headrace_worker.local.stack import Child
from tests.chaos.environment import Environment
from tests.chaos.kill_faults import SUSTAINABLE_LOAD, wait_for_two_ready
from tests.chaos.listener import ListenerConfig, read_handled
from tests.chaos.redis_faults import restart
from tests.chaos.scenario import scenario
from tests.chaos.workers import PYTHONPATH

_NAME = "orders"
#: Seconds after which the jobs of a killed listener come to another.
_LEASE_SECONDS = 3.0
#: Seconds until all ends must be handled after the last fault: the third delivery comes after about 4.
_SETTLE_SECONDS = 60.0


@scenario(39, "listeners, workers and Redis killed while ends are handled", long=12, short=1, lease=5.0)
def listeners_killed(env: Environment) -> None:
    """One of two listeners is killed (SIGKILL), then a worker, then Redis, while every tenth end fails at random.

    Each end is handled at least once, with its outcome, or is a dead letter.
    """
    env.start_workers(2)
    with _Listeners(env) as listeners:
        with env.load(listen=_NAME, **SUSTAINABLE_LOAD):
            for _ in range(env.repetitions):
                time.sleep(env.random.uniform(0.3, 2))
                listeners.kill_one()
                env.kill(env.random.choice(wait_for_two_ready(env)))
                env.start_worker()
                time.sleep(env.random.uniform(0.3, 2))
                env.redis.kill()
                listeners.kill_one()
                time.sleep(env.random.uniform(0, 1.5))
                restart(env)
            env.wait(lambda: env.ready_workers, "a worker")
        keys = Keys(env.prefix)
        env.expect(
            env.holds_within(lambda: not env.server.exists(keys.listen_open, keys.listen_due), _SETTLE_SECONDS),
            "ends were left behind",
        )
    handled = read_handled(listeners.file)
    dead = {name.decode() for name in env.server.hkeys(keys.dead)}
    delivered = {line.job for line in handled} | {name.removesuffix(".listen") for name in dead if "." in name}
    finished = {key.decode().removeprefix(keys.result("")) for key in env.server.scan_iter(keys.result("*"))}
    env.expect(bool(finished), "no job has ended")
    env.expect(not finished - delivered, f"never handled: {sorted(finished - delivered)[:5]}")
    env.expect(not delivered - finished, f"handled without an outcome: {sorted(delivered - finished)[:5]}")
    env.expect(all(line.has_outcome for line in handled), "an end was handled without its outcome")
    again = sum(count - 1 for count in Counter(line.job for line in handled).values())
    env.notes.append(
        f"{2 * env.repetitions} listeners, {env.repetitions} workers, {env.repetitions} times Redis; "
        f"{len(delivered):,} ends handled, {again} of them again"
    )


class _Listeners:
    """Two listeners of a scenario, as a context manager."""

    def __init__(self, env: Environment) -> None:
        self._env = env
        self._children: list[Child] = []
        self._number = 0
        #: What all listeners have handled.
        self.file = env.folder / "handled.jsonl"
        self.file.touch()

    def _start(self) -> None:
        self._number += 1
        config = ListenerConfig(
            url=self._env.url,
            name=_NAME,
            file=str(self.file),
            lease=_LEASE_SECONDS,
            seed=self._env.random.randrange(2**31),
        )
        name = f"listener-{self._number}"
        command = ["tests.chaos.listener", msgspec.json.encode(config).decode()]
        self._children.append(Child(name, command, {"PYTHONPATH": PYTHONPATH}, self._env.folder / f"{name}.log"))

    def kill_one(self) -> None:
        """Kill a random listener, and start another."""
        child = self._children.pop(self._env.random.randrange(len(self._children)))
        child.check()
        child.process.kill()
        child.process.wait()
        self._start()

    def __enter__(self) -> Self:
        for _ in range(2):
            self._start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for child in self._children:
            child.stop()
