"""Workers of the chart that the played KEDA and autoscaler scale by the exporter's real numbers."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chart.autoscaler import Autoscaler, read_scaled_object
from tests.chart.cluster import Cluster
from tests.chart.load import Load, check_outcomes, read_outcomes
from tests.chart.release import SMALL, RedisServer, Release
from tests.deploy.stack import Stack

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]

#: How many times as fast as the machine's the clock of KEDA and the autoscaler runs: its cooldown takes 10 s.
SPEED = 30.0
#: The class of workers: a job takes 0.1 s, and a claim holds up to 256.
FOREST = {"serve": ["slow"], "scale": {"by": "keda", "min": 0, "max": 2, "jobsPerReplica": 50, "cooldown": 300}}


@pytest.fixture
def cluster(prepared: Stack) -> Iterator[Cluster]:
    with Cluster({"models": prepared.folder / "models"}) as cluster:
        yield cluster


@pytest.fixture
def server(cluster: Cluster, prepared: Stack) -> Iterator[RedisServer]:
    with RedisServer(cluster, prepared.folder) as server:
        yield server


def test_bursts_scale_workers_from_zero_and_back_and_never_up_and_down_while_a_claim_holds_all_jobs(
    cluster: Cluster, server: RedisServer, tmp_path: Path
):
    release = Release(cluster, {"workerDefaults": SMALL, "workers": {"forest": FOREST}})
    cluster.apply(server.secrets())
    objects = release.render()
    release.run_hooks(objects, "pre-install")
    release.apply(objects)
    cluster.deployments["headrace-forest"].scale(0)  # no worker has ever run when the contracts are published
    release.run_hooks(objects, "post-install")
    workers = cluster.deployments["headrace-forest"]
    load = Load(server, "slow", "burst")
    rule = read_scaled_object(cluster.scalers["headrace-forest"])

    def has_outcomes(count: int) -> bool:
        return len(read_outcomes(server, "burst")) >= count

    with Autoscaler(cluster, rule, SPEED) as autoscaler:
        cluster.wait_for(
            "the exporter tells of no backlog", lambda: (autoscaler.values or [(0, None)])[-1][1] == 0
        )
        load.burst(150)
        cluster.wait_for("a worker has taken the first burst", lambda: has_outcomes(20))
        load.burst(100)
        cluster.wait_for("all jobs have ended", lambda: has_outcomes(250))
        cluster.wait_for("no worker is left", lambda: workers.replicas == 0 and workers.settled())
        load.burst(60)
        cluster.wait_for("all jobs have ended", lambda: has_outcomes(310))
        cluster.wait_for("no worker is left", lambda: workers.replicas == 0 and workers.settled())
    check_outcomes(server, load, "burst", tmp_path)
    print(workers.scales, [value for _, value in autoscaler.values])
    cycles = [
        list(numbers)
        for started, numbers in itertools.groupby(workers.scales[2:], key=lambda number: number > 0)
        if started
    ]
    assert workers.scales[:2] == [1, 0]
    assert [max(cycle) for cycle in cycles] == [2, 2]
    assert all(cycle in ([1, 2], [1, 2, 1]) for cycle in cycles), workers.scales
    assert workers.restarts == 0
    exporter = cluster.deployments["headrace-exporter"]
    (pod,) = exporter.pods
    exporter.scale(0)
    cluster.wait_for("the exporter has ended", lambda: not pod.running)
    assert [(end.reason, end.exit_code) for end in pod.ends] == [("deleted", 143)]
    codes = {end.exit_code for _, pod in workers.history for end in pod.ends}
    assert codes <= {0, 143}  # 143: of a worker that was deleted before it had started; none was killed
