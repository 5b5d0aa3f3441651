"""A scenario in which a worker is frozen at each step, and workers that can be stopped or killed at any step."""

from __future__ import annotations

import itertools
import signal
import time

from tests.chaos.environment import Environment
from tests.chaos.scenario import scenario
from tests.chaos.workers import Worker, wait_until
from tests.support.armed_steps import (
    BLOCKING_STEPS,
    CLAIM_STEPS,
    COMMAND_STEPS,
    FOLDER_VARIABLE,
    TARGETS,
    Armed,
    Target,
)

#: A load with idle moments, so that workers wait at Redis: most jobs arrive in the reply to a BLMOVE.
IDLE_LOAD = {"rate": 8.0, "longest": 0.03}
#: The leases for which a frozen worker stays frozen, and the seconds in which a step must be taken.
_FROZEN_LEASES, _STEP_SECONDS = 1.6, 30.0
#: The most commands that a process sends until it is frozen at one of them.
_MOST_COMMANDS = 40


class SteppedWorkers:
    """Workers of which one is frozen or killed at a step, whichever takes it first."""

    def __init__(self, env: Environment, count: int, url: str | None = None) -> None:
        self._env, self._url, self._folder = env, url, env.folder / "steps"
        self._folder.mkdir()
        self._numbers = itertools.count(1)
        started = [self.start() for _ in range(count)]
        for worker in started:
            wait_until(lambda worker=worker: worker.is_ready, 60, f"worker {worker.name}")

    def start(self) -> Worker:
        """Start a worker without waiting."""
        include = "tests.support.armed_steps"
        return self._env.start_worker(self._url, include, **{FOLDER_VARIABLE: str(self._folder)})

    def take(self, step: str, target: Target, number: signal.Signals, times: int = 1) -> Worker | None:
        """Send a signal to processes at the next step. Return their worker, None if no worker took the step."""
        env = self._env
        Armed(next(self._numbers), step, times, target, number).write(self._folder)
        is_taken = env.holds_within(lambda: [*self._folder.glob("taken-*")], _STEP_SECONDS)
        env.expect(is_taken, f"no worker came to the step {step} ({target})")
        if not is_taken:
            (self._folder / "armed").unlink(missing_ok=True)
            return None
        (mark,) = self._folder.glob("taken-*")
        pid = int(mark.name.partition("-")[2])
        mark.unlink()
        return next(worker for worker in env.workers if worker.pid == pid)


@scenario(30, "a worker frozen at each step", long=10)
def frozen_at_each_step(env: Environment) -> None:
    """A worker is stopped (SIGSTOP) for longer than its lease at each step of a claim and of a blocking claim.

    The process that takes the step, the main process or all are stopped; then each repetition stops one of them
    before or after a random command to Redis.
    """
    stops = [(step, target, 1) for step in (*CLAIM_STEPS, *BLOCKING_STEPS) for target in TARGETS]
    stops += [
        (env.random.choice(COMMAND_STEPS), env.random.choice(TARGETS), env.random.randint(1, _MOST_COMMANDS))
        for _ in range(env.repetitions)
    ]
    stepped = SteppedWorkers(env, 3)
    with env.load(**IDLE_LOAD):
        for step, target, times in stops:
            worker = stepped.take(step, target, signal.SIGSTOP, times)
            if worker is None:
                continue
            if step == "waiting" and target != "self":
                env.holds_within(lambda worker=worker: env.held(worker), env.lease / 2)  # a job comes to it
            if target != "self":
                env.record_kill(env.held(worker))
            time.sleep(_FROZEN_LEASES * env.lease)
            worker.signal_all(signal.SIGCONT)
            time.sleep(0.3)
    env.notes.append(f"{len(stops)} stops, {env.repetitions} of them at a random command")
