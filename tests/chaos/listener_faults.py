"""A scenario in which listeners are killed, with workers and Redis, while they handle the ends of jobs."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator

import msgspec

from headrace.wire.keys import Keys
from headrace_worker.local.stack import Child
from tests.chaos.environment import Environment
from tests.chaos.kill_faults import SUSTAINABLE_LOAD
from tests.chaos.listener import ListenerConfig, read_handled
from tests.chaos.pairs import find_ended, run_pair
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
    file = env.folder / "handled.jsonl"
    file.touch()

    @contextlib.contextmanager
    def run_listener(number: int) -> Iterator[Child]:
        seed = env.random.randrange(2**31)
        config = ListenerConfig(url=env.url, name=_NAME, file=str(file), lease=_LEASE_SECONDS, seed=seed)
        command = ["tests.chaos.listener", msgspec.json.encode(config).decode()]
        name = f"listener-{number}"
        child = Child(name, command, {"PYTHONPATH": PYTHONPATH}, env.folder / f"{name}.log")
        try:
            yield child
        finally:
            child.stop()

    with run_pair(env, run_listener) as listeners:
        with env.load(listen=_NAME, **SUSTAINABLE_LOAD):
            listeners.kill_in_turn()
        keys = Keys(env.prefix)
        env.expect(
            env.holds_within(lambda: not env.server.exists(keys.listen_open, keys.listen_due), _SETTLE_SECONDS),
            "ends were left behind",
        )
    handled = read_handled(file)
    dead = {name.decode() for name in env.server.hkeys(keys.dead)}
    delivered = {line.job for line in handled} | {name.removesuffix(".listen") for name in dead if "." in name}
    finished = find_ended(env)
    env.expect(bool(finished), "no job has ended")
    env.expect(not finished - delivered, f"never handled: {sorted(finished - delivered)[:5]}")
    env.expect(not delivered - finished, f"handled without an outcome: {sorted(delivered - finished)[:5]}")
    env.expect(all(line.has_outcome for line in handled), "an end was handled without its outcome")
    again = sum(count - 1 for count in Counter(line.job for line in handled).values())
    env.notes.append(
        f"{2 * env.repetitions} listeners, {env.repetitions} workers, {env.repetitions} times Redis; "
        f"{len(delivered):,} ends handled, {again} of them again"
    )
