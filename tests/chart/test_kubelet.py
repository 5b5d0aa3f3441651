"""The runner of pods, with hand-written ones: what it starts, probes, restarts, replaces and ends."""

from __future__ import annotations

import time
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chart.cluster import Cluster
from tests.chart.engine import docker, start_sandbox
from tests.chart.fields import Refused
from tests.chart.pods import IMAGE, container, deployment, job, pod, probe, server

pytestmark = [pytest.mark.long, pytest.mark.timeout(120)]

RESTRICTED = {
    "runAsNonRoot": True,
    "runAsUser": 10001,
    "runAsGroup": 10001,
    "seccompProfile": {"type": "RuntimeDefault"},
}
CONFINED = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}


@pytest.fixture
def cluster(docker_engine: None, tmp_path: Path) -> Iterator[Cluster]:
    (tmp_path / "claim").mkdir()
    (tmp_path / "claim" / "model").write_text("a model")
    for path in (tmp_path.parent, tmp_path, tmp_path / "claim"):
        path.chmod(0o755)  # pytest makes its folders private, but containers run as other users
    with Cluster({"models": tmp_path / "claim"}, back_off=(0.0, 0.5, 0.5)) as cluster:
        yield cluster


def run(cluster: Cluster, script: str, *, main: dict | None = None, **spec: object) -> str:
    """Run a Python script as a pod; return its output."""
    template = pod(container("python", "-c", script, **(main or {})), "script", restartPolicy="Never", **spec)
    (end,) = cluster.run_pod("script", template, 60).ends
    assert end.exit_code == 0, end.log
    return end.log


def test_a_pod_has_the_user_the_confinement_and_the_limits_of_its_template(cluster: Cluster):
    script = """
import os
from pathlib import Path
status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
print(os.getuid(), os.getgid(), int(status["CapBnd"], 16), *(status["NoNewPrivs"] + status["Seccomp"]).split())
limits = [Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes")]
print(next(limit for limit in limits if limit.exists()).read_text().strip())
print(os.statvfs("/tmp").f_blocks * os.statvfs("/tmp").f_frsize)
Path("/tmp/file").write_text("content")
try:
    Path("/file").write_text("content")
except OSError as error:
    print(error.strerror)
"""
    main = {
        "securityContext": CONFINED,
        "resources": {"limits": {"memory": "100Mi", "cpu": "500m"}},
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
    }
    volumes = [{"name": "tmp", "emptyDir": {"medium": "Memory", "sizeLimit": "8Mi"}}]
    lines = run(cluster, script, main=main, securityContext=RESTRICTED, volumes=volumes).splitlines()
    assert lines == ["10001 10001 0 1 2", str(100 << 20), str(8 << 20), "Read-only file system"]


def test_a_pod_reads_secrets_config_maps_and_claims_with_their_modes_and_writes_to_none(cluster: Cluster):
    cluster.apply(
        [
            {
                "kind": "Secret",
                "metadata": {"name": "url"},
                "data": {"worker.url": b64encode(b"redis://x").decode()},
            },
            {"kind": "ConfigMap", "metadata": {"name": "keys"}, "data": {"one.pub": "key 1", "two.pub": "key 2"}},
        ]
    )
    script = """
import os
from pathlib import Path
for path in ("/run/secrets/redis_url", "/keys/one.pub", "/keys/two.pub", "/models/model"):
    mode = Path(path).stat().st_mode & 0o777
    try:
        Path(path).with_name("new").write_text("")
    except OSError as error:
        content = Path(path).read_text() if os.access(path, os.R_OK) else "unreadable"
        print(path, content, oct(mode), error.strerror)
print(os.environ["URL"], os.environ["POD"].startswith("hr"))
"""
    key = {"name": "url", "key": "worker.url"}
    main = {
        "env": [
            {"name": "URL", "valueFrom": {"secretKeyRef": key}},
            {"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        ],
        "volumeMounts": [
            {"name": "credentials", "mountPath": "/run/secrets"},
            {"name": "keys", "mountPath": "/keys"},
            {"name": "models", "mountPath": "/models", "readOnly": True},
        ],
    }
    sources = [{"secret": {"name": "url", "items": [{"key": "worker.url", "path": "redis_url"}]}}]
    volumes = [
        {"name": "credentials", "projected": {"defaultMode": 0o444, "sources": sources}},
        {"name": "keys", "configMap": {"name": "keys", "defaultMode": 0o400}},
        {"name": "models", "persistentVolumeClaim": {"claimName": "models", "readOnly": True}},
    ]
    assert run(cluster, script, main=main, securityContext=RESTRICTED, volumes=volumes).splitlines() == [
        "/run/secrets/redis_url redis://x 0o444 Read-only file system",
        "/keys/one.pub unreadable 0o400 Read-only file system",
        "/keys/two.pub unreadable 0o400 Read-only file system",
        "/models/model a model 0o644 Read-only file system",
        "redis://x True",
    ]


def test_a_container_whose_liveness_probe_fails_is_restarted_and_the_files_of_the_pod_stay(cluster: Cluster):
    main = server(
        env={"UNTIL": "2"},
        livenessProbe=probe(failureThreshold=2),
        volumeMounts=[{"name": "work", "mountPath": "/data"}],
    )
    cluster.apply([deployment(pod(main, volumes=[{"name": "work", "emptyDir": {}}]))])
    cluster.wait_for("a pod is ready", cluster.deployments["test"].settled)
    (first,) = cluster.deployments["test"].pods
    address = first.address
    first.execute("touch", "/data/file")
    cluster.wait_for("it is restarted", lambda: first.restarts >= 1)
    cluster.wait_for("it is ready again", first.available)
    assert first.ends[0].reason == "the liveness probe failed"
    assert first.execute("ls", "/data").strip() == "file"
    assert (first.address, cluster.deployments["test"].pods) == (address, [first])


def test_a_startup_probe_holds_the_others_back_and_ends_a_container_that_takes_too_long(cluster: Cluster):
    slow = server(
        env={"AFTER": "3"}, startupProbe=probe(failureThreshold=10), livenessProbe=probe(failureThreshold=1)
    )
    stuck = server(env={"AFTER": "1e9"}, startupProbe=probe(failureThreshold=2))
    cluster.apply([deployment(pod(slow), name="slow"), deployment(pod(stuck), name="stuck")])
    cluster.wait_for("the slow one is ready", cluster.deployments["slow"].settled)
    cluster.wait_for("the other is restarted twice", lambda: cluster.deployments["stuck"].restarts >= 2)
    assert cluster.deployments["slow"].restarts == 0
    (pod_stuck,) = cluster.deployments["stuck"].pods
    assert {end.reason for end in pod_stuck.ends} == {"the startup probe failed"}
    assert not pod_stuck.available()


def test_a_readiness_probe_that_fails_restarts_nothing(cluster: Cluster):
    main = server(env={"UNTIL": "2"}, readinessProbe=probe(failureThreshold=1))
    cluster.apply([deployment(pod(main))])
    (only,) = _wait_for_pods(cluster, 1)
    cluster.wait_for("it is ready", only.available)
    cluster.wait_for("it is not ready any more", lambda: not only.available())
    assert only.restarts == 0


def test_an_exec_probe_runs_in_the_container(cluster: Cluster):
    check = {"exec": {"command": ["test", "-e", "/tmp/go"]}, "periodSeconds": 1}
    cluster.apply([deployment(pod(server(readinessProbe=check)))])
    (only,) = _wait_for_pods(cluster, 1)
    cluster.wait_for("it serves", lambda: only.address and "serving" in only.log())
    assert not only.available()
    only.execute("touch", "/tmp/go")
    cluster.wait_for("it is ready", only.available)


@pytest.mark.parametrize(("stop", "exit_code"), [("1", 0), ("60", 137)])
def test_a_deleted_pod_has_its_grace_and_no_more(stop: str, exit_code: int, cluster: Cluster):
    cluster.apply([deployment(pod(server(env={"STOP": stop}), terminationGracePeriodSeconds=3))])
    cluster.wait_for("it is ready", cluster.deployments["test"].settled)
    (only,) = cluster.deployments["test"].pods
    cluster.wait_for("it serves", lambda: "serving" in only.log())
    cluster.deployments["test"].scale(0)
    only_deleted = time.monotonic()
    cluster.wait_for("it is gone", lambda: not only.running)
    (end,) = only.ends
    assert (end.reason, end.exit_code) == ("deleted", exit_code)
    assert (1 if exit_code == 0 else 3) <= time.monotonic() - only_deleted < 30


def test_a_container_that_exits_is_started_again_with_growing_pauses(cluster: Cluster):
    cluster.apply([deployment(pod(container("python", "-c", "raise SystemExit(3)")))])
    cluster.wait_for("it is restarted three times", lambda: cluster.deployments["test"].restarts >= 3)
    (only,) = cluster.deployments["test"].pods
    assert {(end.reason, end.exit_code) for end in only.ends} == {("exited", 3)}


def test_a_container_above_its_memory_ends_as_out_of_memory(cluster: Cluster):
    main = container("python", "-c", "bytearray(200 << 20)", resources={"limits": {"memory": "50Mi"}})
    (end,) = cluster.run_pod("hungry", pod(main, restartPolicy="Never"), 60).ends
    assert (end.reason, end.exit_code) == ("out of memory", 137)


def test_a_pod_of_two_containers_has_one_network_and_is_ready_once_both_are(cluster: Cluster):
    script = "import time, urllib.request as u; print(u.urlopen('http://127.0.0.1:8080/live').status, flush=True)"
    client = container("sh", "-c", f'until python -c "{script}"; do :; done; sleep 60') | {"name": "client"}
    check = {"exec": {"command": ["test", "-e", "/tmp/go"]}, "periodSeconds": 1}
    template = pod(server())
    template["spec"]["containers"].append(client | {"readinessProbe": check})
    template["spec"]["terminationGracePeriodSeconds"] = 1
    cluster.apply([deployment(template)])
    (both,) = _wait_for_pods(cluster, 1)
    cluster.wait_for("the client has an answer", lambda: "200" in both.log())
    assert both.containers[0].ready_since is not None
    assert not both.available()
    docker("exec", both.containers[1].name, "touch", "/tmp/go")
    cluster.wait_for("the pod is ready", both.available)


def test_a_rollout_ends_an_old_pod_only_when_a_new_one_is_ready(cluster: Cluster):
    rolling = {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}}
    main = server(env={"AFTER": "1"}, readinessProbe=probe())
    cluster.apply([deployment(pod(main), 2, **rolling)])
    test = cluster.deployments["test"]
    cluster.wait_for("two are ready", test.settled)
    old = test.pods
    changed = server(env={"AFTER": "1", "VERSION": "2"}, readinessProbe=probe())
    cluster.apply([deployment(pod(changed), 2, **rolling)])
    counts = set()
    while not test.settled():
        counts.add((len(test.pods), sum(pod.available() for pod in test.pods)))
        cluster.check()
        time.sleep(0.05)
    assert not set(old) & set(test.pods)
    assert {running for running, _ in counts} == {2, 3}
    assert min(available for _, available in counts) == 2


def test_a_job_is_repeated_by_new_pods_until_one_succeeds(cluster: Cluster):
    main = container("sh", "-c", "case $(hostname) in *-3) exit 0;; *) exit 4;; esac")
    pods = cluster.run_job(job(pod(main, restartPolicy="Never"), backoffLimit=3))
    assert [end.exit_code for pod in pods for end in pod.ends] == [4, 4, 0]


def test_a_pod_under_a_policy_of_egress_reaches_other_pods_and_nothing_outside(cluster: Cluster):
    service = {"selector": {"app": "test"}, "ports": [{"port": 8080, "targetPort": "http"}]}
    cluster.apply([{"kind": "Service", "metadata": {"name": "web"}, "spec": service}, deployment(pod(server()))])
    cluster.wait_for(
        "it serves", lambda: "serving" in "".join(pod.log() for pod in cluster.deployments["test"].pods)
    )
    outside = start_sandbox(f"{cluster.name}-far", IMAGE, cluster.outside)
    script = f"""
import socket
for address in (("web", 8080), ({outside!r}, 1)):
    try:
        socket.create_connection(address, 3).close()
        print("open")
    except ConnectionRefusedError:
        print("reached")
    except OSError:
        print("unreachable")
"""
    assert run(cluster, script).split() == ["open", "reached"]
    policy = {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    cluster.apply([{"kind": "NetworkPolicy", "metadata": {"name": "deny"}, "spec": policy}])
    assert run(cluster, script).split() == ["open", "unreachable"]
    docker("rm", "--force", f"{cluster.name}-far")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda item: item["spec"]["selector"]["matchLabels"].update(app="x"), "does not match"),
        (lambda item: item["spec"].update(paused=True), "does not know paused"),
    ],
)
def test_a_deployment_that_an_api_server_refuses_is_refused(spoil, message, cluster: Cluster):
    item = deployment(pod(server()))
    spoil(item)
    with pytest.raises(Refused, match=message):
        cluster.apply([item])
    assert cluster.pods == []


def test_an_image_that_is_not_there_fails_the_test_that_waits(cluster: Cluster):
    cluster.apply([deployment(pod(server() | {"image": "headrace-no-such-image:0"}))])
    with pytest.raises(AssertionError, match="no-such-image"):
        cluster.wait_for("it is ready", cluster.deployments["test"].settled, 30)


def _wait_for_pods(cluster: Cluster, count: int) -> list:
    cluster.wait_for("the pods are there", lambda: len(cluster.deployments["test"].pods) == count)
    return cluster.deployments["test"].pods
