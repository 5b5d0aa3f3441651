"""A namespace of a cluster with one machine and no API server: it takes objects, and plays them on the engine."""

from __future__ import annotations

import itertools
import os
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.chart.deployment import Deployment
from tests.chart.engine import docker, labels
from tests.chart.fields import Fields, Refused, selects
from tests.chart.kubelet import Node, Pod
from tests.chart.pod_spec import read_pod
from tests.chart.running import BACK_OFF
from tests.chart.volumes import Configuration

Object = Mapping[str, Any]

#: Kinds that only an API server, an operator or the eviction of pods reads.
NOT_PLAYED = frozenset(["ServiceAccount", "PodDisruptionBudget", "PodMonitor", "ServiceMonitor", "PrometheusRule"])
#: Kinds that `autoscaler.py` plays.
SCALERS = frozenset(["ScaledObject", "HorizontalPodAutoscaler"])
#: Seconds that a Job may take, with its repetitions.
_JOB_SECONDS = 120.0


class Cluster:
    """A namespace, as a context manager that ends its pods."""

    def __init__(
        self, claims: Mapping[str, Path], namespace: str = "ml", back_off: Sequence[float] = BACK_OFF
    ) -> None:
        self.name = f"hr{os.getpid()}-{secrets.token_hex(2)}"
        self.configuration = Configuration()
        self.deployments: dict[str, Deployment] = {}
        self.scalers: dict[str, Object] = {}
        #: Every pod that was ever started.
        self.pods: list[Pod] = []
        self.network = f"{self.name}-pods"
        #: The network of what is not in the cluster, and of the pods that may connect to it.
        self.outside = f"{self.name}-outside"
        self._claims, self._namespace, self._back_off = claims, namespace, back_off
        self._services: dict[str, Object] = {}
        self._policies: dict[str, Object] = {}
        self._accounts = {"default"}
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        docker("network", "create", "--internal", *labels(), self.network)
        docker("network", "create", *labels(), self.outside)

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        docker("network", "rm", self.network, self.outside)

    def stop(self) -> None:
        """End all pods; return when they have ended."""
        for deployment in self.deployments.values():
            deployment.stop()
        for pod in self.pods:
            pod.delete()
        for pod in self.pods:
            pod.join(pod.spec.grace + 60)

    def apply(self, objects: Iterable[Object]) -> None:
        """Take over objects, as `kubectl apply`: what pods read first, then what starts pods."""
        workloads = []
        for item in objects:
            kind, name = item["kind"], item["metadata"]["name"]
            if kind in ("Secret", "ConfigMap"):
                self.configuration.add(item)
            elif kind == "Service":
                self._services[name] = item["spec"]
            elif kind == "ServiceAccount":
                self._accounts.add(name)
            elif kind == "NetworkPolicy":
                self._policies[name] = item["spec"]
            elif kind in SCALERS:
                self.scalers[name] = item
            elif kind == "Deployment":
                workloads.append(item)
            elif kind not in NOT_PLAYED:
                raise Refused(f"the runner does not know the kind {kind}, of {name}")
        for item in workloads:
            name = item["metadata"]["name"]
            if name in self.deployments:
                self.deployments[name].apply(item)
            else:
                self.deployments[name] = Deployment(item, self._starter(name))

    def run_job(self, item: Object) -> list[Pod]:
        """Run a Job to its end; return its pods, the last of which succeeded. Fails the test if none did."""
        name = item["metadata"]["name"]
        with Fields(item["spec"], f"Job/{name}: spec") as spec:
            spec.ignore("ttlSecondsAfterFinished")
            for name_of_count in ("completions", "parallelism"):
                spec.expect(name_of_count, 1)
            limit, seconds = spec.take("backoffLimit", 6), spec.take("activeDeadlineSeconds", _JOB_SECONDS)
            template = spec.take("template")
        if template["spec"].get("restartPolicy") not in ("Never", "OnFailure"):
            raise Refused(f"Job/{name}: restartPolicy should be Never or OnFailure")
        deadline, pods = time.monotonic() + seconds, list[Pod]()
        for back_off in itertools.chain(self._back_off[1:], itertools.repeat(self._back_off[-1])):
            pods.append(pod := self.run_pod(name, template, deadline - time.monotonic()))
            if pod.succeeded:
                return pods
            if len(pods) > limit or time.monotonic() + back_off > deadline:
                break
            time.sleep(back_off)
        pytest.fail(f"Job/{name} has failed {len(pods)} times:\n{pods[-1].log()}")

    def run_pod(self, name: str, template: Object, seconds: float) -> Pod:
        """Run a pod until it has completed."""
        pod = self._start_pod(name, template)
        pod.join(seconds)
        if pod.error is not None:
            raise pod.error
        return pod

    def wait_for(self, description: str, condition: Callable[[], object], seconds: float = 90) -> None:
        """Wait for a condition; fail the test with the logs of the pods after `seconds`."""
        deadline = time.monotonic() + seconds
        while not condition():
            self.check()
            if time.monotonic() > deadline:
                pytest.fail(f"{description}: not within {seconds} s\n{self.logs()}")
            time.sleep(0.2)

    def check(self) -> None:
        """Raise the error of a controller or of a pod that the runner could not play."""
        for failing in (*self.deployments.values(), *self.pods):
            if failing.error is not None:
                raise failing.error

    def logs(self) -> str:
        return "\n".join(f"--- {pod.name}, {pod.restarts} restarts\n{pod.log()[-3000:]}" for pod in self.pods[-6:])

    def resolve(self, host: str) -> str:
        """Return the address of a ready pod of a Service. Raises OSError where none is ready."""
        service = self._services.get(host.partition(".")[0])
        for pod in self.pods:
            if service is not None and selects(service["selector"], pod.spec.labels) and pod.available():
                return pod.address
        raise OSError(f"no pod of the Service {host} is ready")

    def _starter(self, name: str) -> Callable[[Object], Pod]:
        return lambda template: self._start_pod(name, template)

    def _start_pod(self, owner: str, template: Object) -> Pod:
        name = f"{self.name}-{owner}-{next(self._numbers)}"
        spec = read_pod(template, self.configuration, name)
        if spec.service_account not in self._accounts:
            raise Refused(f"{name}: no ServiceAccount {spec.service_account} is there")
        aliases = []
        for service, fields in self._services.items():
            if selects(fields["selector"], spec.labels):
                _check_ports(
                    service, fields, {name: port for item in spec.containers for name, port in item.ports.items()}
                )
                aliases += [service, f"{service}.{self._namespace}.svc"]
        outside = "" if self._confined(spec.labels) else self.outside
        node = Node(self.network, outside, self._claims, self._back_off)
        pod = Pod(name, spec, node, aliases)
        with self._lock:
            self.pods.append(pod)
        return pod

    def _confined(self, labels_of_pod: Mapping[str, str]) -> bool:
        """Return whether a policy restricts the connections that a pod opens: it stays inside of the cluster."""
        return any(
            "Egress" in policy.get("policyTypes", ["Ingress"])
            and selects((policy.get("podSelector") or {}).get("matchLabels") or {}, labels_of_pod)
            for policy in self._policies.values()
        )


def _check_ports(name: str, service: Object, ports: Mapping[str, int]) -> None:
    for port in service["ports"]:
        target = port.get("targetPort", port["port"])
        if ports.get(target, target) != port["port"]:
            raise Refused(f"Service/{name}: port {port['port']} leads to {target}; the runner maps no ports")
