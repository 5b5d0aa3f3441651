"""Two processes of a kind beside the workers: one of them is killed, then a worker, then Redis and one again."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

from headrace.wire.keys import Keys
from headrace_worker.local.stack import Child
from tests.chaos.environment import Environment
from tests.chaos.kill_faults import wait_for_two_ready
from tests.chaos.redis_faults import restart

#: Runs a process for the block; its argument is the number of those before it.
RunChild = Callable[[int], contextlib.AbstractContextManager[Child]]


class Pair:
    """Two processes that run. `stack` ends them."""

    def __init__(self, env: Environment, run: RunChild, stack: contextlib.ExitStack) -> None:
        self._env, self._run, self._stack = env, run, stack
        self._children: list[Child] = []
        self._count = 0
        for _ in range(2):
            self._start()

    def _start(self) -> None:
        self._children.append(self._stack.enter_context(self._run(self._count)))
        self._count += 1

    def _kill_one(self) -> None:
        """Kill one of the two by chance (SIGKILL), and start another."""
        child = self._children.pop(self._env.random.randrange(len(self._children)))
        child.check()
        child.process.kill()
        child.process.wait()
        self._start()

    def kill_in_turn(self) -> None:
        """Kill one of the two, a worker, then Redis and one of the two, each time of the scenario."""
        env = self._env
        for _ in range(env.repetitions):
            time.sleep(env.random.uniform(0.3, 2))
            self._kill_one()
            env.kill(env.random.choice(wait_for_two_ready(env)))
            env.start_worker()
            time.sleep(env.random.uniform(0.3, 2))
            env.redis.kill()
            self._kill_one()
            time.sleep(env.random.uniform(0, 1.5))
            restart(env)
        env.wait(lambda: env.ready_workers, "a worker")


@contextlib.contextmanager
def run_pair(env: Environment, run: RunChild) -> Iterator[Pair]:
    """Run two processes during the block."""
    with contextlib.ExitStack() as stack:
        yield Pair(env, run, stack)


def find_ended(env: Environment) -> set[str]:
    """Return the jobs that have an outcome."""
    keys = Keys(env.prefix)
    return {key.decode().removeprefix(keys.result("")) for key in env.server.scan_iter(keys.result("*"))}
