"""The controller of a Deployment: it starts and ends pods until template and replicas are as desired."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import ceil, floor
from typing import Any, NamedTuple

from tests.chart.fields import Fields, Refused, selects
from tests.chart.kubelet import Pod

#: Seconds between two looks at the pods.
_TICK = 0.1


@dataclass(frozen=True)
class DeploymentSpec:
    #: None keeps the present number.
    replicas: int | None
    template: Mapping[str, Any]
    selector: Mapping[str, str]
    min_ready: float
    #: The permitted surge and unavailability, a number or a percentage; None is Recreate.
    rolling: tuple[object, object] | None


def read_deployment(item: Mapping[str, Any]) -> DeploymentSpec:
    """Read a Deployment. Raises Refused where an API server would, or for what the runner does not play."""
    name = item["metadata"]["name"]
    with Fields(item["spec"], f"Deployment/{name}: spec") as spec:
        spec.ignore("revisionHistoryLimit", "progressDeadlineSeconds")
        with spec.child("selector") as fields:
            selector = fields.take("matchLabels")
        rolling: tuple[object, object] | None = None
        with spec.child("strategy", {}) as strategy:
            strategy.expect("type", "RollingUpdate", "Recreate")
            with strategy.child("rollingUpdate", {}) as update:
                surge, unavailable = update.take("maxSurge", "25%"), update.take("maxUnavailable", "25%")
        if (item["spec"].get("strategy") or {}).get("type") != "Recreate":
            rolling = (surge, unavailable)
        replicas, template = spec.take("replicas", None), spec.take("template")
        min_ready = float(spec.take("minReadySeconds", 0))
    if not selector or not selects(selector, (template.get("metadata") or {}).get("labels") or {}):
        raise Refused(f"Deployment/{name}: the selector {selector} does not match the labels of its template")
    if template["spec"].get("restartPolicy", "Always") != "Always":
        raise Refused(f"Deployment/{name}: restartPolicy should be Always")
    return DeploymentSpec(replicas, template, selector, min_ready, rolling)


class Counts(NamedTuple):
    """The pods of a revision that are not being deleted, and those of them that are available."""

    all: int
    available: int


class Step(NamedTuple):
    """The number of pods to start by the new template, and to end of the new and of the former ones."""

    start: int = 0
    end_new: int = 0
    end_old: int = 0


def next_step(desired: int, new: Counts, old: Counts, ending: int, rolling: tuple[object, object] | None) -> Step:
    """Decide the next step. `ending` are the pods that are being deleted; only Recreate waits for them."""
    if new.all > desired:
        return Step(end_new=new.all - desired)
    if rolling is None:
        return Step(end_old=old.all) if old.all else Step(start=0 if ending else desired - new.all)
    surge, unavailable = _number(rolling[0], desired, ceil), _number(rolling[1], desired, floor)
    if surge == unavailable == 0:
        unavailable = 1
    start = max(0, min(desired - new.all, desired + surge - new.all - old.all))
    broken = old.all - old.available
    spare = max(0, new.available + old.available - (desired - unavailable))
    return Step(start=start, end_old=min(old.all, broken + spare))


def _number(value: object, desired: int, to_integer: Callable[[float], int]) -> int:
    text = str(value)
    return to_integer(desired * float(text[:-1]) / 100) if text.endswith("%") else int(text)


class Deployment:
    """A Deployment that is reconciled in a thread until it is deleted."""

    def __init__(self, item: Mapping[str, Any], start_pod: Callable[[Mapping[str, Any]], Pod]) -> None:
        self.spec = read_deployment(item)
        self.replicas = 1 if self.spec.replicas is None else self.spec.replicas
        #: All pods that it has ever started, with their revisions.
        self.history: list[tuple[Mapping[str, Any], Pod]] = []
        #: The replicas that were desired, from the first to the present ones.
        self.scales: list[int] = [self.replicas]
        self.error: Exception | None = None
        self._start_pod = start_pod
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._reconcile, name="deployment", daemon=True)
        self._thread.start()

    def apply(self, item: Mapping[str, Any]) -> None:
        """Take over another state of the object; a new template replaces the pods by the strategy."""
        spec = read_deployment(item)
        if spec.selector != self.spec.selector:
            raise Refused("the selector of a Deployment cannot be changed")
        with self._lock:
            self.spec = spec
        if spec.replicas is not None:
            self.scale(spec.replicas)

    def scale(self, replicas: int) -> None:
        with self._lock:
            if replicas != self.replicas:
                self.replicas = replicas
                self.scales.append(replicas)

    @property
    def pods(self) -> list[Pod]:
        """The pods that are not being deleted."""
        return [pod for _, pod in self.history if not pod.deleted]

    @property
    def restarts(self) -> int:
        return sum(pod.restarts for _, pod in self.history)

    def settled(self) -> bool:
        """Return whether exactly the desired pods of the present template are there and available."""
        with self._lock:
            pods = [(revision, pod) for revision, pod in self.history if pod.running]
            return len(pods) == self.replicas and all(
                revision == self.spec.template and not pod.deleted and pod.available(self.spec.min_ready)
                for revision, pod in pods
            )

    def stop(self) -> None:
        """End the controller and its pods; return at once."""
        self._stopped.set()
        self._thread.join(60)
        for pod in self.pods:
            pod.delete()

    def _reconcile(self) -> None:
        try:
            while not self._stopped.wait(_TICK):
                with self._lock:
                    self._step()
        except Exception as error:  # noqa: BLE001  # raised by who looks at the cluster
            self.error = error

    def _step(self) -> None:
        for _, pod in self.history:
            if pod.error is not None:
                raise pod.error
        new = [pod for revision, pod in self.history if revision == self.spec.template and not pod.deleted]
        old = [pod for revision, pod in self.history if revision != self.spec.template and not pod.deleted]
        ending = sum(pod.deleted and pod.running for _, pod in self.history)
        step = next_step(self.replicas, self._count(new), self._count(old), ending, self.spec.rolling)
        for pods, count in ((new, step.end_new), (old, step.end_old)):
            # Those that are not ready go first, then the youngest.
            pods.reverse()
            for pod in sorted(pods, key=lambda pod: pod.available())[:count]:
                pod.delete()
        for _ in range(step.start):
            self.history.append((self.spec.template, self._start_pod(self.spec.template)))

    def _count(self, pods: list[Pod]) -> Counts:
        return Counts(len(pods), sum(pod.available(self.spec.min_ready) for pod in pods))
