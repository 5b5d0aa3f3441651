"""A scenario with the workers and the producer of the previous release beside new ones, and kills of both."""

from __future__ import annotations

import os
import time
from functools import partial

from tests.chaos.disk import SkipScenario
from tests.chaos.environment import Environment
from tests.chaos.kill_faults import SUSTAINABLE_LOAD, wait_for_two_ready
from tests.chaos.scenario import scenario
from tests.chaos.workers import PYTHONPATH, Worker
from tests.support.previous_release import extract_previous_release


@scenario(36, "the previous release beside the new one", long=10, lease=10.0)
def previous_release(env: Environment) -> None:
    """Workers and producers of the previous release share Redis with new ones, and workers of both are killed.

    Before the first release, the code before the last change of client or worker stands for it.
    """
    release = extract_previous_release(env.folder / "previous")
    if release is None:
        raise SkipScenario("this checkout has no earlier commit; clone with its history: git fetch --unshallow")
    path = os.pathsep.join([*map(str, release.folders), PYTHONPATH])
    env.start_workers(2)
    former = {worker.name for worker in env.start_workers(2, PYTHONPATH=path)}
    load = SUSTAINABLE_LOAD | {"rate": SUSTAINABLE_LOAD["rate"] / 2}
    kills = {True: 0, False: 0}
    with env.load(**load), env.load(**load, pythonpath=path):
        for number in range(env.repetitions):
            time.sleep(env.random.uniform(0.2, 3))
            is_former = bool(number % 2)
            wait_for_two_ready(env)
            victims = env.wait(partial(_ready, env, former, is_former), "a worker of this release", 60)
            env.kill(env.random.choice(victims))
            kills[is_former] += 1
            worker = env.start_worker(**({"PYTHONPATH": path} if is_former else {}))
            if is_former:
                former.add(worker.name)
    ran = {run.pid for run in env.runs()}
    for worker in env.workers:
        kind = "the previous release" if worker.name in former else "the new release"
        env.expect(not worker.is_ready or bool(worker.pool & ran), f"a worker of {kind} ran no job")
    env.notes.append(f"{kills[True]} kills of workers of {release.name}, {kills[False]} of new ones")


def _ready(env: Environment, former: set[str], is_former: bool) -> list[Worker]:
    """Return the ready workers of the previous release, or of the new one."""
    return [worker for worker in env.ready_workers if (worker.name in former) is is_former]
