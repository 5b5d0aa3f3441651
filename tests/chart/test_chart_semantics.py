"""Checks beyond the schemas: all files of values pass each check, and each check refuses a damaged object."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest

from tests.chart import object_checks, pod_checks
from tests.chart.helm import VALUES, Object, pick, pod_templates, render_file, select
from tests.chart.object_checks import OBJECT_CHECKS
from tests.chart.objects import Check
from tests.chart.pod_checks import POD_CHECKS

pytestmark = pytest.mark.long

CHECKS = POD_CHECKS + OBJECT_CHECKS


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", VALUES)
def test_what_the_chart_makes_passes_the_check(name: str, check: Check):
    assert list(check(render_file(name))) == []


Damage = Callable[[list[Object]], object]


def worker(objects: list[Object]) -> Object:
    """Return the Deployment of the class forest."""
    return pick(objects, "Deployment", "headrace-forest")


def gateway(objects: list[Object]) -> Object:
    """Return the Deployment of the gateway."""
    return pick(objects, "Deployment", "headrace-gateway")


def notifier(objects: list[Object]) -> Object:
    """Return the Deployment of the notifier."""
    return pick(objects, "Deployment", "headrace-notifier")


def spec(objects: list[Object]) -> Object:
    return worker(objects)["spec"]["template"]["spec"]


def container(objects: list[Object]) -> Object:
    return spec(objects)["containers"][0]


def variable(objects: list[Object], name: str) -> Object:
    (item,) = [item for item in container(objects)["env"] if item["name"] == name]
    return item


def tmp(objects: list[Object]) -> Object:
    (volume,) = [item for item in spec(objects)["volumes"] if item["name"] == "tmp"]
    return volume


def remove(objects: list[Object], kind: str, name: str | None = None) -> None:
    for item in select(objects, kind, name):
        objects.remove(item)


DAMAGES: list[tuple[Check, Damage]] = [
    (object_checks.names_are_unique_and_short, lambda o: o.append(copy.deepcopy(worker(o)))),
    (object_checks.names_are_unique_and_short, lambda o: worker(o)["metadata"].update(name="a" * 47)),
    (object_checks.names_are_unique_and_short, lambda o: worker(o)["metadata"].update(name="1.2")),
    (object_checks.labels_are_valid, lambda o: worker(o)["spec"]["template"]["metadata"]["labels"].update(a=1)),
    (object_checks.labels_are_valid, lambda o: worker(o)["metadata"]["labels"].update(a="b" * 64)),
    (object_checks.labels_are_valid, lambda o: worker(o)["metadata"]["annotations"].update(a=True)),
    (object_checks.selectors_select_pods, lambda o: worker(o)["spec"]["selector"]["matchLabels"].update(a="b")),
    (object_checks.selectors_select_pods, lambda o: select(o, "Service")[0]["spec"]["selector"].update(a="b")),
    (
        object_checks.selectors_select_pods,
        lambda o: pick(o, "ServiceMonitor")["spec"]["selector"]["matchLabels"].update(a="b"),
    ),
    (
        object_checks.deployments_select_only_their_own_pods,
        lambda o: worker(o)["spec"]["selector"]["matchLabels"].pop("headrace/class"),
    ),
    (
        object_checks.deployments_select_only_their_own_pods,
        lambda o: spec(o)["topologySpreadConstraints"][0]["labelSelector"]["matchLabels"].pop("headrace/class"),
    ),
    (pod_checks.mounts_are_volumes, lambda o: spec(o)["volumes"].pop()),
    (
        pod_checks.mounts_are_volumes,
        lambda o: container(o)["volumeMounts"].append({"name": "tmp", "mountPath": "/run/secrets"}),
    ),
    (object_checks.ports_are_there, lambda o: container(o)["livenessProbe"]["httpGet"].update(port="http")),
    (object_checks.ports_are_there, lambda o: select(o, "Service")[0]["spec"]["ports"][0].update(port=80)),
    (
        object_checks.ports_are_there,
        lambda o: pick(o, "PodMonitor", "headrace-worker")["spec"]["podMetricsEndpoints"][0].update(port="web"),
    ),
    (
        object_checks.ports_are_there,
        lambda o: pick(o, "NetworkPolicy", "headrace-worker")["spec"]["ingress"][0]["ports"][0].update(port=1),
    ),
    (
        pod_checks.a_restart_follows_only_a_hang,
        lambda o: container(o)["startupProbe"]["httpGet"].update(path="/ready"),
    ),
    (
        pod_checks.a_restart_follows_only_a_hang,
        lambda o: container(o)["readinessProbe"]["httpGet"].update(path="/live"),
    ),
    (pod_checks.a_restart_follows_only_a_hang, lambda o: container(o).pop("livenessProbe")),
    (pod_checks.quantities_are_valid, lambda o: container(o)["resources"]["limits"].update(memory="2 GB")),
    (pod_checks.quantities_are_valid, lambda o: container(o)["resources"]["requests"].update(memory="1Mi")),
    (pod_checks.quantities_are_valid, lambda o: container(o).pop("resources")),
    (
        pod_checks.quantities_are_valid,
        lambda o: tmp(o)["emptyDir"].update(sizeLimit="4G"),
    ),
    (
        pod_checks.variables_are_settings,
        lambda o: container(o)["env"].append({"name": "HEADRACE_SERVES", "value": ""}),
    ),
    (
        pod_checks.variables_are_settings,
        lambda o: container(o)["env"].append({"name": "HEADRACE_SERVE", "value": ""}),
    ),
    (pod_checks.variables_load_as_settings, lambda o: variable(o, "HEADRACE_DRAIN").update(value="-1")),
    (pod_checks.commands_are_known, lambda o: container(o)["args"].__setitem__(0, "work")),
    (pod_checks.commands_are_known, lambda o: container(o)["args"].__setitem__(2, "many")),
    (pod_checks.processes_share_the_memory, lambda o: container(o)["args"].__setitem__(2, "2")),
    (pod_checks.the_grace_is_above_the_drain, lambda o: variable(o, "HEADRACE_DRAIN").update(value="310")),
    (pod_checks.the_grace_is_above_the_drain, lambda o: spec(o).pop("terminationGracePeriodSeconds")),
    (
        pod_checks.the_grace_is_above_the_drain,
        lambda o: gateway(o)["spec"]["template"]["spec"].update(terminationGracePeriodSeconds=30),
    ),
    (
        pod_checks.the_grace_is_above_the_drain,
        lambda o: notifier(o)["spec"]["template"]["spec"].update(terminationGracePeriodSeconds=20),
    ),
    (
        pod_checks.a_restart_follows_only_a_hang,
        lambda o: notifier(o)["spec"]["template"]["spec"]["containers"][0]["readinessProbe"]["httpGet"].update(
            path="/live"
        ),
    ),
    (
        pod_checks.accounts_are_there,
        lambda o: remove(o, "ServiceAccount", "headrace-notifier"),
    ),
    (
        object_checks.no_pod_is_missing_during_a_rollout,
        lambda o: notifier(o)["spec"]["strategy"]["rollingUpdate"].update(maxUnavailable=1),
    ),
    (
        object_checks.no_pod_is_missing_during_a_rollout,
        lambda o: gateway(o)["spec"]["strategy"]["rollingUpdate"].update(maxSurge=0),
    ),
    (
        pod_checks.variables_are_settings,
        lambda o: gateway(o)["spec"]["template"]["spec"]["containers"][0]["env"].append(
            {"name": "HEADRACE_SERVE", "value": ""}
        ),
    ),
    (pod_checks.pods_are_restricted, lambda o: spec(o)["securityContext"].pop("runAsNonRoot")),
    (pod_checks.pods_are_restricted, lambda o: spec(o)["securityContext"].pop("seccompProfile")),
    (pod_checks.pods_are_restricted, lambda o: spec(o).pop("automountServiceAccountToken")),
    (pod_checks.pods_are_restricted, lambda o: spec(o).update(hostNetwork=False)),
    (pod_checks.pods_are_restricted, lambda o: container(o)["securityContext"].pop("capabilities")),
    (
        pod_checks.pods_are_restricted,
        lambda o: container(o)["securityContext"].update(readOnlyRootFilesystem=False),
    ),
    (pod_checks.pods_are_restricted, lambda o: container(o)["securityContext"].update(privileged=False)),
    (
        pod_checks.pods_are_restricted,
        lambda o: spec(o)["volumes"].append({"name": "a", "hostPath": {"path": "/"}}),
    ),
    (
        object_checks.secrets_are_references,
        lambda o: variable(o, "HEADRACE_DRAIN").update(value="rediss://worker:pw@redis"),
    ),
    (object_checks.secrets_are_references, lambda o: worker(o).update(kind="Secret")),
    (
        pod_checks.credentials_are_those_of_secrets_sh,
        lambda o: spec(o)["volumes"][0]["projected"]["sources"][0]["secret"]["items"][0].update(key="worker-url"),
    ),
    (
        pod_checks.credentials_are_those_of_secrets_sh,
        lambda o: spec(o)["volumes"][0]["projected"]["sources"][0]["secret"]["items"][0].update(key="admin.url"),
    ),
    (object_checks.nothing_else_sets_what_a_scaler_sets, lambda o: worker(o)["spec"].update(replicas=1)),
    (object_checks.nothing_else_sets_what_a_scaler_sets, lambda o: remove(o, "HorizontalPodAutoscaler")),
    (object_checks.nothing_else_sets_what_a_scaler_sets, lambda o: remove(o, "Deployment", "headrace-forest")),
    (
        object_checks.nothing_else_sets_what_a_scaler_sets,
        lambda o: o.append(copy.deepcopy(pick(o, "HorizontalPodAutoscaler"))),
    ),
    (
        object_checks.no_pod_is_missing_during_a_rollout,
        lambda o: worker(o)["spec"]["strategy"]["rollingUpdate"].update(maxUnavailable=1),
    ),
    (
        object_checks.budgets_are_of_classes_of_several,
        lambda o: remove(o, "PodDisruptionBudget", "headrace-forest"),
    ),
    (
        object_checks.budgets_are_of_classes_of_several,
        lambda o: pick(o, "HorizontalPodAutoscaler")["spec"].update(maxReplicas=1),
    ),
    (
        object_checks.budgets_are_of_classes_of_several,
        lambda o: pick(o, "PodDisruptionBudget", "headrace-forest")["spec"].update(maxUnavailable=0),
    ),
    (pod_checks.images_have_a_version, lambda o: container(o).update(image="headrace-worker")),
    (pod_checks.images_have_a_version, lambda o: container(o).update(image="headrace-worker:latest")),
    (object_checks.policies_cover_every_pod, lambda o: remove(o, "NetworkPolicy", "headrace-task")),
    (
        object_checks.policies_cover_every_pod,
        lambda o: pick(o, "NetworkPolicy", "headrace-worker")["spec"]["ingress"][0].update({"from": []}),
    ),
    (
        object_checks.policies_cover_every_pod,
        lambda o: pick(o, "NetworkPolicy", "headrace-worker")["spec"]["policyTypes"].pop(),
    ),
    (
        object_checks.policies_cover_every_pod,
        lambda o: pick(o, "NetworkPolicy", "headrace-worker")["spec"]["egress"].append({}),
    ),
    (object_checks.triggers_ask_the_exporter, lambda o: remove(o, "Service", "headrace-exporter")),
    (
        object_checks.triggers_ask_the_exporter,
        lambda o: pick(o, "ScaledObject")["spec"]["triggers"][0]["metadata"].update(
            valueLocation="headrace_backlog"
        ),
    ),
    (
        object_checks.triggers_ask_the_exporter,
        lambda o: pod_templates(o)["Deployment/headrace-exporter"]["spec"]["containers"][0].update(
            args=["exporter"]
        ),
    ),
    (pod_checks.accounts_are_there, lambda o: spec(o).update(serviceAccountName="default")),
    (
        pod_checks.accounts_are_there,
        lambda o: pick(o, "ServiceAccount", "headrace").update(automountServiceAccountToken=True),
    ),
    (
        object_checks.tasks_can_run_again,
        lambda o: pick(o, "Job", "headrace-publish")["metadata"].pop("annotations"),
    ),
    (
        object_checks.tasks_can_run_again,
        lambda o: pick(o, "Job", "headrace-publish")["spec"].pop("activeDeadlineSeconds"),
    ),
    (
        object_checks.tasks_can_run_again,
        lambda o: pick(o, "Job", "headrace-functions")["spec"]["template"]["spec"].update(
            serviceAccountName="headrace"
        ),
    ),
]


@pytest.mark.parametrize(("check", "damage"), DAMAGES, ids=lambda value: getattr(value, "__name__", ""))
def test_the_check_refuses_a_damaged_object(check: Check, damage: Damage):
    objects = copy.deepcopy(render_file("everything"))
    damage(objects)
    assert list(check(objects)) != []


def test_every_check_has_a_damage_that_it_refuses():
    assert {check for check, _ in DAMAGES} == set(CHECKS)
