"""The reader of pods: it refuses what a cluster would refuse, and what the runner does not play."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.chart.deployment import Counts, Step, next_step
from tests.chart.fields import Refused, quantity
from tests.chart.pod_spec import PodSpec, Probe, read_pod
from tests.chart.pods import container, pod, probe, server
from tests.chart.probing import ProbeState
from tests.chart.volumes import Configuration


def read(template: dict[str, Any], configuration: Configuration | None = None) -> PodSpec:
    return read_pod(template, configuration or Configuration(), "pod-1")


def test_a_probe_has_the_defaults_of_kubernetes():
    main = server(readinessProbe={"httpGet": {"port": "http"}}, livenessProbe={"tcpSocket": {"port": 8080}})
    read_container = read(pod(main)).containers[0]
    assert read_container.readiness == Probe(port=8080, path="/", period=10, timeout=1, successes=1, failures=3)
    assert read_container.liveness == Probe(port=8080)
    assert read_container.startup is None


def test_a_probe_fails_after_as_many_failures_in_a_row_and_passes_after_as_many_successes():
    state = ProbeState(Probe(port=1, successes=2, failures=3))
    results = []
    for success in (False, False, True, True, False, False, True, False, False, False):
        state.record(success)
        results.append("passed" if state.passed else "failed" if state.failed else "open")
    assert results == ["open"] * 3 + ["passed"] * 6 + ["failed"]


def test_the_container_s_security_context_wins_over_the_pod_s():
    main = server(securityContext={"runAsUser": 7, "capabilities": {"drop": ["ALL"], "add": ["CHOWN"]}})
    options = read(pod(main, securityContext={"runAsUser": 5, "runAsGroup": 6})).containers[0].options
    assert options == ("--user", "7:6", "--cap-drop=ALL", "--cap-add=CHOWN")


def test_without_a_number_the_user_of_the_image_is_checked_where_root_is_refused():
    assert read(pod(server(), securityContext={"runAsNonRoot": True})).containers[0].refuses_root
    assert (
        not read(pod(server(), securityContext={"runAsNonRoot": True, "runAsUser": 7})).containers[0].refuses_root
    )


def test_a_file_of_a_volume_is_readable_by_the_group_of_the_pod():
    configuration = Configuration()
    configuration.add({"kind": "Secret", "metadata": {"name": "s"}, "stringData": {"a": "1", "b": "2"}})
    items = [{"key": "a", "path": "x", "mode": 0o400}]
    volumes = [{"name": "files", "secret": {"secretName": "s", "items": items}}]
    for group, mode in ((0, 0o400), (10001, 0o440)):
        spec = read(pod(server(), volumes=volumes, securityContext={"fsGroup": group}), configuration)
        assert spec.volumes["files"].files == {"x": (b"1", mode)}


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (lambda: pod(server(), hostNetwork=True), "does not know hostNetwork"),
        (lambda: pod(server(), initContainers=[server()]), "does not know initContainers"),
        (lambda: pod(server(lifecycle={"preStop": {}})), "does not know lifecycle"),
        (lambda: pod(server(env={"A": 1})), "A is 1, should be a text"),
        (lambda: pod(server(readinessProbe=probe(terminationGracePeriodSeconds=3))), "does not know termination"),
        (lambda: pod(server(readinessProbe={"httpGet": {"port": "web"}})), "'web'; the container has"),
        (lambda: pod(server(readinessProbe={"grpc": {"port": 1}})), "either httpGet, tcpSocket or exec"),
        (lambda: pod(server(volumeMounts=[{"name": "x", "mountPath": "/x"}])), "no volume of the pod"),
        (lambda: pod(server(resources={"limits": {"memory": "2 GB"}})), "'2 GB', should be a quantity"),
        (
            lambda: pod(server(resources={"requests": {"cpu": "2"}, "limits": {"cpu": "500m"}})),
            "requests 2 of cpu, and is limited to 500m",
        ),
        (lambda: pod(server(securityContext={"privileged": True})), "privileged is True"),
        (lambda: pod(server(securityContext={"seccompProfile": {"type": "Unconfined"}})), "'Unconfined'"),
        (lambda: pod(server(securityContext={"runAsUser": 0}), securityContext={"runAsNonRoot": True}), "is 0"),
        (lambda: pod(server(), volumes=[{"name": "v", "secret": {"secretName": "s"}}]), "no Secret s"),
        (lambda: pod(server(), volumes=[{"name": "v", "hostPath": {"path": "/"}}]), "no such kind of volume"),
        (lambda: pod(server(), automountServiceAccountToken=True), "automountServiceAccountToken is on"),
        (lambda: pod(container("echo", "$(A)", env=[{"name": "A", "value": "1"}])), "expands no variables"),
    ],
)
def test_a_pod_that_a_cluster_or_the_runner_cannot_play_is_refused(template: Callable[[], dict], message: str):
    with pytest.raises(Refused, match=message):
        read(template())


def test_quantities():
    values = [quantity(text, "") for text in ("500m", "2", 3, "1.5", "64Mi", "10G")]
    assert values == [0.5, 2, 3, 1.5, 64 << 20, 10e9]


ROLLING = (1, 0)


@pytest.mark.parametrize(
    ("state", "step"),
    [
        ((2, Counts(0, 0), Counts(2, 2), 0, ROLLING), Step(start=1)),
        ((2, Counts(1, 0), Counts(2, 2), 0, ROLLING), Step()),
        ((2, Counts(1, 1), Counts(2, 2), 0, ROLLING), Step(end_old=1)),
        ((2, Counts(1, 1), Counts(1, 1), 1, ROLLING), Step(start=1)),
        ((2, Counts(1, 0), Counts(2, 1), 0, ROLLING), Step(end_old=1)),
        ((2, Counts(2, 2), Counts(1, 1), 0, ROLLING), Step(end_old=1)),
        ((2, Counts(3, 2), Counts(0, 0), 0, ROLLING), Step(end_new=1)),
        ((0, Counts(2, 2), Counts(0, 0), 0, ROLLING), Step(end_new=2)),
        ((4, Counts(0, 0), Counts(4, 4), 0, ("25%", "25%")), Step(start=1, end_old=1)),
        ((1, Counts(0, 0), Counts(1, 1), 0, None), Step(end_old=1)),
        ((1, Counts(0, 0), Counts(0, 0), 1, None), Step()),
        ((1, Counts(0, 0), Counts(0, 0), 0, None), Step(start=1)),
    ],
)
def test_steps_of_a_rollout(state: tuple[int, Counts, Counts, int, tuple | None], step: Step):
    assert next_step(*state) == step
