"""Checks between the objects of the chart. Each names problems."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from tests.chart.fields import selects
from tests.chart.helm import Object, pod_templates, select
from tests.chart.objects import Check, containers, labels, ports, selected

#: A name in DNS, short enough for a host name.
NAME = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?")
LABEL = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")
#: A password in a URL, or a key in a text.
CREDENTIAL = re.compile(r"://[^/\s]*:[^/\s]*@|BEGIN [A-Z ]*PRIVATE KEY")


def scalers(objects: list[Object]) -> Iterator[tuple[Object, str]]:
    for kind in ("ScaledObject", "HorizontalPodAutoscaler"):
        for item in select(objects, kind):
            yield item, item["spec"]["scaleTargetRef"]["name"]


def texts(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from texts(item)
    elif isinstance(value, str):
        yield value


def names_are_unique_and_short(objects: list[Object]) -> Iterator[str]:
    names = [(item["kind"], item["metadata"]["name"]) for item in objects]
    for kind, name in names:
        if names.count((kind, name)) > 1:
            yield f"{kind}/{name} is there twice"
        if not NAME.fullmatch(name):
            yield f"{kind}/{name} is no name in DNS"
    for item in select(objects, "Deployment"):
        if len(item["metadata"]["name"]) > 46:  # the names of its pods have 17 characters more
            yield f"{item['metadata']['name']} is too long for the host names of its pods"


def labels_are_valid(objects: list[Object]) -> Iterator[str]:
    for metadata in [item["metadata"] for item in objects] + [
        pod["metadata"] for pod in pod_templates(objects).values()
    ]:
        for name, value in metadata["labels"].items():
            if not isinstance(value, str) or not LABEL.fullmatch(value):
                yield f"label {name} is {value!r}"
        for name, value in metadata.get("annotations", {}).items():
            if not isinstance(value, str):
                yield f"annotation {name} is {value!r}"


def selectors_select_pods(objects: list[Object]) -> Iterator[str]:
    for item in select(objects, "Deployment"):
        if not selects(item["spec"]["selector"]["matchLabels"], labels(item["spec"]["template"])):
            yield f"Deployment/{item['metadata']['name']} does not select its pods"
    for kind in ("Service", "PodDisruptionBudget", "NetworkPolicy", "PodMonitor"):
        for item in select(objects, kind):
            spec = item["spec"]
            selector = spec.get("podSelector", spec.get("selector"))
            if not selected(objects, selector.get("matchLabels", selector)):
                yield f"{kind}/{item['metadata']['name']} selects no pod"
    for item in select(objects, "ServiceMonitor"):
        selector = item["spec"]["selector"]["matchLabels"]
        if not [s for s in select(objects, "Service") if selects(selector, s["metadata"]["labels"])]:
            yield f"ServiceMonitor/{item['metadata']['name']} selects no service"


def deployments_select_only_their_own_pods(objects: list[Object]) -> Iterator[str]:
    for item in select(objects, "Deployment"):
        if len(selected(objects, item["spec"]["selector"]["matchLabels"])) > 1:
            yield f"Deployment/{item['metadata']['name']} selects pods of another"
        for spread in item["spec"]["template"]["spec"].get("topologySpreadConstraints", []):
            if spread["labelSelector"]["matchLabels"] != item["spec"]["selector"]["matchLabels"]:
                yield f"Deployment/{item['metadata']['name']} spreads other pods than its own"


def ports_are_there(objects: list[Object]) -> Iterator[str]:
    for owner, pod, container in containers(objects):
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            for action in container.get(probe, {}).values():
                if isinstance(action, dict) and action["port"] not in ports(pod):
                    yield f"{owner}: {probe} asks {action['port']}"
    for item in select(objects, "Service"):
        for pod in selected(objects, item["spec"]["selector"]):
            for port in item["spec"]["ports"]:
                if ports(pod).get(port["targetPort"]) != port["port"]:
                    yield f"Service/{item['metadata']['name']} leads to {port['targetPort']}"
    for item in select(objects, "PodMonitor"):
        for pod in selected(objects, item["spec"]["selector"]["matchLabels"]):
            for endpoint in item["spec"]["podMetricsEndpoints"]:
                if endpoint["port"] not in ports(pod):
                    yield f"PodMonitor/{item['metadata']['name']} scrapes {endpoint['port']}"
    for item in select(objects, "NetworkPolicy"):
        for pod in selected(objects, item["spec"]["podSelector"]["matchLabels"]):
            for rule in item["spec"].get("ingress", []):
                for port in rule["ports"]:
                    if port["port"] not in ports(pod).values():
                        yield f"NetworkPolicy/{item['metadata']['name']} opens {port['port']}"


def secrets_are_references(objects: list[Object]) -> Iterator[str]:
    for item in select(objects, "Secret"):
        yield f"Secret/{item['metadata']['name']} is in the chart"
    for item in objects:
        for text in texts(item):
            if CREDENTIAL.search(text):
                yield f"{item['kind']}/{item['metadata']['name']} holds a credential"


def nothing_else_sets_what_a_scaler_sets(objects: list[Object]) -> Iterator[str]:
    deployments = {item["metadata"]["name"]: item for item in select(objects, "Deployment")}
    scaled = [target for _, target in scalers(objects)]
    for target in scaled:
        if target not in deployments:
            yield f"a scaler scales {target}, which is not there"
        elif "replicas" in deployments[target]["spec"]:
            yield f"Deployment/{target} has replicas, which a scaler sets"
        if scaled.count(target) > 1:
            yield f"two scalers scale {target}"
    for name, item in deployments.items():
        if name not in scaled and not isinstance(item["spec"].get("replicas"), int):
            yield f"nothing says how many pods Deployment/{name} has"


def no_pod_is_missing_during_a_rollout(objects: list[Object]) -> Iterator[str]:
    for item in select(objects, "Deployment"):
        component = item["metadata"]["labels"]["app.kubernetes.io/component"]
        if component in ("worker", "gateway", "notifier") and item["spec"]["strategy"]["rollingUpdate"] != {
            "maxUnavailable": 0,
            "maxSurge": 1,
        }:
            yield f"Deployment/{item['metadata']['name']} stops pods before the new ones are ready"


def budgets_are_of_classes_of_several(objects: list[Object]) -> Iterator[str]:
    maxima = {
        target: item["spec"].get("maxReplicas", item["spec"].get("maxReplicaCount"))
        for item, target in scalers(objects)
    }
    budgets = [item["spec"]["selector"]["matchLabels"] for item in select(objects, "PodDisruptionBudget")]
    for item in select(objects, "Deployment"):
        several = (maxima.get(item["metadata"]["name"]) or item["spec"].get("replicas", 1)) > 1
        if budgets.count(item["spec"]["selector"]["matchLabels"]) != int(several):
            yield f"Deployment/{item['metadata']['name']} has no budget, or one that holds a node"
    for item in select(objects, "PodDisruptionBudget"):
        if item["spec"]["maxUnavailable"] != 1 or item["spec"]["unhealthyPodEvictionPolicy"] != "AlwaysAllow":
            yield f"PodDisruptionBudget/{item['metadata']['name']} may hold a node for ever"


def policies_cover_every_pod(objects: list[Object]) -> Iterator[str]:
    policies = select(objects, "NetworkPolicy")
    for owner, pod in pod_templates(objects).items():
        own = [p["spec"] for p in policies if selects(p["spec"]["podSelector"]["matchLabels"], labels(pod))]
        if len(own) != 1 or set(own[0]["policyTypes"]) != {"Ingress", "Egress"}:
            yield f"{owner} is covered by {len(own)} policies"
    for item in policies:
        for direction, peers in (("ingress", "from"), ("egress", "to")):
            for rule in item["spec"].get(direction, []):
                if (
                    not rule.get("ports")
                    or rule.get(peers) == []
                    or (direction == "ingress" and not rule.get("from"))
                ):
                    yield f"NetworkPolicy/{item['metadata']['name']}: a rule of {direction} permits all"


def triggers_ask_the_exporter(objects: list[Object]) -> Iterator[str]:
    services = {
        f"{s['metadata']['name']}.{s['metadata']['namespace']}.svc:{port['port']}"
        for s in select(objects, "Service")
        for port in s["spec"]["ports"]
    }
    classes = {
        arg.split("=")[1] for _, _, c in containers(objects) for arg in c["args"] if arg.startswith("--class=")
    }
    for item in select(objects, "ScaledObject"):
        for trigger in item["spec"]["triggers"]:
            host = trigger["metadata"]["url"].removeprefix("http://").removesuffix("/metrics")
            (name,) = re.findall(
                r'^headrace_class_backlog\{class="(.*)"\}$', trigger["metadata"]["valueLocation"]
            ) or [""]
            if host not in services or name not in classes:
                yield f"ScaledObject/{item['metadata']['name']} asks {host} for the class {name}"
    for item in select(objects, "HorizontalPodAutoscaler"):
        for metric in item["spec"]["metrics"]:
            if metric["external"]["metric"]["selector"]["matchLabels"]["class"] not in classes:
                yield f"HorizontalPodAutoscaler/{item['metadata']['name']} asks for a class that is not there"


def tasks_can_run_again(objects: list[Object]) -> Iterator[str]:
    """Check that no task stays in the way of the next upgrade, or is tried for ever."""
    for item in select(objects, "Job") + select(objects, "Pod"):
        annotations = item["metadata"].get("annotations", {})
        if "before-hook-creation" not in annotations.get("helm.sh/hook-delete-policy", ""):
            yield f"{item['kind']}/{item['metadata']['name']} is in the way of the next"
        if item["kind"] == "Job" and not (
            item["spec"].get("activeDeadlineSeconds") and "backoffLimit" in item["spec"]
        ):
            yield f"Job/{item['metadata']['name']} has no end"
        early = "pre-install" in annotations.get("helm.sh/hook", "")
        if early and "serviceAccountName" in item["spec"]["template"]["spec"]:
            yield f"Job/{item['metadata']['name']} runs before its account is there"


OBJECT_CHECKS: list[Check] = [
    names_are_unique_and_short,
    labels_are_valid,
    selectors_select_pods,
    deployments_select_only_their_own_pods,
    ports_are_there,
    secrets_are_references,
    nothing_else_sets_what_a_scaler_sets,
    no_pod_is_missing_during_a_rollout,
    budgets_are_of_classes_of_several,
    policies_cover_every_pod,
    triggers_ask_the_exporter,
    tasks_can_run_again,
]
