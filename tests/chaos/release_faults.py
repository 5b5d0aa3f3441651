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
    #: All workers by whether they are of the previous release, and the kills of these.
    workers = {False: env.start_workers(2), True: env.start_workers(2, PYTHONPATH=path)}
    kills = {False: 0, True: 0}
    load = SUSTAINABLE_LOAD | {"rate": SUSTAINABLE_LOAD["rate"] / 2}
    with env.load(**load), env.load(**load, pythonpath=path):
        for number in range(env.repetitions):
            time.sleep(env.random.uniform(0.2, 3))
            is_former = bool(number % 2)
            wait_for_two_ready(env)
            victims = env.wait(partial(_ready, env, workers[is_former]), "a worker of this release", 60)
            env.kill(env.random.choice(victims))
            kills[is_former] += 1
            workers[is_former].append(env.start_worker(**({"PYTHONPATH": path} if is_former else {})))
    ran = {run.pid for run in env.runs()}
    for is_former, name in ((True, "previous"), (False, "new")):
        is_used = any(worker.pool & ran for worker in workers[is_former])
        env.expect(is_used, f"no worker of the {name} release ran a job")
    env.notes.append(f"{kills[True]} kills of workers of {release.name}, {kills[False]} of new ones")


def _ready(env: Environment, workers: list[Worker]) -> list[Worker]:
    """Return those of the workers that are ready."""
    return [worker for worker in env.ready_workers if worker in workers]
