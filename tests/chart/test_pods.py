"""The pods of the chart, played on a Docker engine by the runner of `kubelet.py`: outages, rollouts, probes.

    make chart-test

Without a Docker engine only the reading of the pods is tested.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.chart.cluster import Cluster
from tests.chart.deployment import Deployment
from tests.chart.engine import docker, start_sandbox
from tests.chart.helm import MINIMAL, pod_templates, render
from tests.chart.kubelet import Pod
from tests.chart.load import Load, check_outcomes, read_outcomes
from tests.chart.pod_spec import read_pod
from tests.chart.release import IMAGE, SMALL, RedisServer, Release
from tests.chart.volumes import Configuration
from tests.deploy.stack import Stack

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]

#: Seconds that Redis is away.
OUTAGE = 60.0


def test_the_runner_knows_every_field_of_the_pods_of_the_chart():
    configuration = Configuration()
    users = ("worker", "metrics", "operator", "producer", "flower", "installer", "gateway", "notifier")
    keys = {f"{user}.url": "redis://x" for user in users} | {"flower.login": "x:y"}
    for name, content in (("headrace-redis", keys), ("headrace-notify", {"notify.toml": "[orders]"})):
        configuration.add({"kind": "Secret", "metadata": {"name": name}, "stringData": content})
    optional = {name: {"enabled": True} for name in ("flower", "gateway", "notifier")}
    pods = pod_templates(render({**MINIMAL, **optional}))
    assert len(pods) == 8
    for name, template in pods.items():
        spec = read_pod(template, configuration, name)
        assert spec.containers[0].image.startswith("headrace")


@pytest.fixture(scope="module")
def cluster(prepared: Stack) -> Iterator[Cluster]:
    with Cluster({"models": prepared.folder / "models"}) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def server(cluster: Cluster, prepared: Stack) -> Iterator[RedisServer]:
    with RedisServer(cluster, prepared.folder) as server:
        yield server


@dataclass
class Start:
    """The state of the workers at the end of the outage in which they started."""

    available: dict[str, int]
    logs: str
    #: A worker that was deleted while it waited for Redis.
    deleted: Pod


@pytest.fixture(scope="module")
def release(cluster: Cluster, server: RedisServer) -> Release:
    """Prepare a release of two workers, and of one whose model takes a minute to load; start no pod of it."""
    workers = {"default": {"serve": ["slow"], "replicas": 2}, "heavy": {"serve": ["heavy"], "replicas": 1}}
    test = {"model": "slow", "instances": '{"number": 3.0}'}
    cluster.apply(server.secrets())
    return Release(cluster, {"workerDefaults": SMALL, "workers": workers, "test": test})


@pytest.fixture(scope="module")
def start(release: Release, server: RedisServer) -> Start:
    """Install the release. Redis goes away after its first hook, and comes back 60 s after the workers started."""
    cluster, objects = release.cluster, release.render()
    release.run_hooks(objects, "pre-install")
    server.stop()
    release.apply(objects)
    began, deployment = time.monotonic(), cluster.deployments["headrace-default"]
    cluster.wait_for(
        "a worker waits for Redis", lambda: any("waiting for it" in pod.log() for pod in deployment.pods)
    )
    deleted = next(pod for pod in deployment.pods if "waiting for it" in pod.log())
    deleted.delete()
    time.sleep(OUTAGE - (time.monotonic() - began))
    available = {
        name: sum(pod.available() for pod in deployment.pods) for name, deployment in cluster.deployments.items()
    }
    state = Start(available, cluster.logs(), deleted)
    server.start()
    cluster.wait_for("the workers are ready", cluster.deployments["headrace-default"].settled)
    release.run_hooks(objects, "post-install")
    return state


@pytest.fixture
def workers(start: Start, cluster: Cluster) -> Deployment:
    """Return the two workers, ready."""
    deployment = cluster.deployments["headrace-default"]
    cluster.wait_for("the workers are ready", deployment.settled)
    return deployment


def test_workers_that_start_while_redis_is_away_wait_for_it_and_are_not_restarted(start: Start, cluster: Cluster):
    assert start.available == {"headrace-default": 0, "headrace-heavy": 0, "headrace-exporter": 1}
    assert "waiting for it" in start.logs
    assert {name: deployment.restarts for name, deployment in cluster.deployments.items()} == dict.fromkeys(
        start.available, 0
    )


def test_a_worker_that_waits_for_redis_ends_by_sigterm_before_it_is_killed(start: Start):
    assert [(end.reason, end.exit_code) for end in start.deleted.ends] == [("deleted", 143)]


def test_a_worker_whose_model_takes_a_minute_to_load_is_not_restarted(start: Start, cluster: Cluster):
    deployment = cluster.deployments["headrace-heavy"]
    cluster.wait_for("its worker is ready", deployment.settled, 120)
    (pod,) = deployment.pods
    (container,) = pod.containers
    assert container.ready_since is not None
    assert container.ready_since - container.started >= 60
    assert (deployment.restarts, pod.ends) == (0, [])


def test_the_pod_of_helm_test_succeeds(workers: Deployment, release: Release):
    (pod,) = release.test()
    assert pod.succeeded, pod.log()


def test_redis_away_for_a_minute_under_load_restarts_no_pod_and_loses_no_job(
    workers: Deployment, server: RedisServer, cluster: Cluster, tmp_path: Path
):
    pods = workers.pods
    with Load(server, "slow", "outage") as load:
        cluster.wait_for("jobs run", lambda: len(read_outcomes(server, "outage")) > 20)
        server.stop()
        time.sleep(OUTAGE)
        server.start()
        confirmed = len(load.confirmed)
        cluster.wait_for("jobs are taken again", lambda: len(load.confirmed) > confirmed + 50)
    check_outcomes(server, load, "outage", tmp_path)
    assert workers.pods == pods
    assert [deployment.restarts for deployment in cluster.deployments.values()] == [0, 0, 0]


def test_a_rollout_of_two_workers_under_load_loses_no_job(
    workers: Deployment, server: RedisServer, release: Release, cluster: Cluster, tmp_path: Path
):
    old, fewest = workers.pods, 2

    def settled() -> bool:
        nonlocal fewest
        fewest = min(fewest, sum(pod.available() for pod in workers.pods))
        return workers.settled()

    with Load(server, "slow", "rollout") as load:
        cluster.wait_for("jobs run", lambda: len(read_outcomes(server, "rollout")) > 20)
        release.apply(release.render(workerDefaults=SMALL | {"podAnnotations": {"rollout": "2"}}))
        cluster.wait_for("the workers are replaced", settled, 180)
    check_outcomes(server, load, "rollout", tmp_path)
    assert not set(old) & set(workers.pods)
    assert fewest == 2
    assert [(end.reason, end.exit_code) for pod in old for end in pod.ends] == [("deleted", 0)] * 2


def test_a_worker_connects_to_redis_and_to_nothing_outside_of_the_cluster(workers: Deployment, cluster: Cluster):
    outside = start_sandbox(f"{cluster.name}-far", IMAGE, cluster.outside)
    script = f"""
import socket
for address in (("redis", 6379), ({outside!r}, 1)):
    try:
        socket.create_connection(address, 3).close()
        print("open")
    except ConnectionRefusedError:
        print("refused")
    except OSError:
        print("unreachable")
"""
    try:
        assert workers.pods[0].execute("python", "-c", script).split() == ["open", "unreachable"]
    finally:
        docker("rm", "--force", f"{cluster.name}-far")
