"""Common parts of the objects of a chart: their pods, labels and ports."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from tests.chart.fields import selects
from tests.chart.helm import Object, pod_templates

#: A check of the chart's objects, which names what is wrong with them.
Check = Callable[[list[Object]], Iterator[str]]


def containers(objects: list[Object]) -> Iterator[tuple[str, Object, Object]]:
    for owner, pod in pod_templates(objects).items():
        for container in pod["spec"]["containers"]:
            yield owner, pod, container


def labels(pod: Object) -> dict[str, str]:
    labels: dict[str, str] = pod["metadata"]["labels"]
    return labels


def selected(objects: list[Object], selector: Object) -> list[Object]:
    return [pod for pod in pod_templates(objects).values() if selects(selector, labels(pod))]


def ports(pod: Object) -> dict[str, int]:
    return {port["name"]: port["containerPort"] for c in pod["spec"]["containers"] for port in c.get("ports", [])}
