"""A container of a pod, played on the Docker engine: it is started, probed, restarted and ended."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

from tests.chart.engine import docker, image_user, inspect, labels, processors
from tests.chart.fields import Refused
from tests.chart.pod_spec import Container, Probe
from tests.chart.probing import Prober, attempt

#: Seconds before a container is started again, after its first end, its second and so on; then the last.
BACK_OFF = (0.0, 10.0, 20.0, 40.0, 80.0, 160.0, 300.0)
#: Seconds that a container runs before its earlier ends are forgotten.
FORGIVEN = 600.0
#: Seconds between two looks at a container and its probes.
_TICK = 0.05


@dataclass(frozen=True)
class Sandbox:
    """The parts of a pod that its containers share."""

    name: str
    address: str
    restart_policy: str
    #: Seconds between SIGTERM and SIGKILL.
    grace: float
    back_off: Sequence[float]
    #: Set when the pod is deleted.
    deleted: threading.Event


@dataclass(frozen=True)
class End:
    """An end of a container."""

    reason: str
    exit_code: int
    #: Seconds from SIGTERM to the end; 0 for a container that ended by itself.
    seconds: float
    log: str


class RunningContainer:
    """A container with its restarts, in a thread until its pod is deleted or its restart policy lets it rest."""

    def __init__(self, spec: Container, sandbox: Sandbox, mounts: Sequence[str]) -> None:
        #: The monotonic time since which it is ready; None while it is not.
        self.ready_since: float | None = None
        #: The monotonic time of the present start.
        self.started = time.monotonic()
        self.ends: list[End] = []
        self.restarts = 0
        #: The failure of the runner itself, such as an image that is not there.
        self.error: Exception | None = None
        self._spec, self._sandbox, self._mounts = spec, sandbox, mounts
        self._thread = threading.Thread(target=self._run, name=sandbox.name, daemon=True)
        self._thread.start()

    @property
    def name(self) -> str:
        """The name of the present container on the engine."""
        return f"{self._sandbox.name}-{self._spec.name}-{self.restarts}"

    def join(self) -> None:
        self._thread.join()

    def log(self) -> str:
        """Return what it has written, restarts included."""
        present = _log(self.name) if len(self.ends) == self.restarts else ""
        return "".join(end.log for end in self.ends) + present

    def _run(self) -> None:
        try:
            if self._spec.refuses_root:
                _check_not_root(self._spec.image)
            self._repeat()
        except Exception as error:  # noqa: BLE001  # raised by who waits for the pod
            self.error = error
        finally:
            self.ready_since = None
            subprocess.run(["docker", "rm", "--force", "--volumes", self.name], capture_output=True)

    def _repeat(self) -> None:
        ends, pauses = 0, self._sandbox.back_off
        while not self._sandbox.deleted.is_set():
            self.started = time.monotonic()
            end = self._run_once()
            self.ends.append(end)
            policy = self._sandbox.restart_policy
            if policy == "Never" or (policy == "OnFailure" and end.exit_code == 0):
                return
            ends = 0 if time.monotonic() - self.started > FORGIVEN else ends
            if self._sandbox.deleted.wait(pauses[min(ends, len(pauses) - 1)]):
                return
            docker("rm", "--force", "--volumes", self.name)
            ends += 1
            self.restarts += 1

    def _run_once(self) -> End:
        """Run a container to its end; its probes and the deletion of the pod may cause it."""
        spec = self._spec
        cpus = [f"--cpus={min(spec.cpus, processors()):g}"] if spec.cpus else []
        environ = [f"--env={name}={value}" for name, value in spec.environ.items()]
        docker(
            *("run", "--detach", "--name", self.name, "--network", f"container:{self._sandbox.name}", *labels()),
            *("--no-healthcheck", *spec.options, *cpus, *environ, *self._mounts),
            *(["--entrypoint", spec.command[0]] if spec.command else []),
            *(spec.image, *spec.command[1:], *spec.arguments),
        )
        waiting = subprocess.Popen(["docker", "wait", self.name], stdout=subprocess.PIPE)
        probers: dict[str, Prober] = {}
        try:
            reason = self._watch(waiting, probers)
        finally:
            self.ready_since = None
            for prober in probers.values():
                prober.stop()
        terminated = time.monotonic()
        if reason:
            grace = self._sandbox.grace
            docker("stop", "--time", f"{grace:.0f}", self.name, timeout=grace + 60)
        waiting.communicate()
        seconds = time.monotonic() - terminated if reason else 0.0
        for prober in probers.values():
            prober.join()
        state = inspect(self.name)["State"]
        reason = reason or ("out of memory" if state["OOMKilled"] else "exited")
        return End(reason, int(state["ExitCode"]), seconds, _log(self.name))

    def _watch(self, waiting: subprocess.Popen[bytes], probers: dict[str, Prober]) -> str:
        """Follow a container; return the reason to end it, or an empty text once it has ended by itself."""
        probes = {
            "startup": self._spec.startup,
            "readiness": self._spec.readiness,
            "liveness": self._spec.liveness,
        }

        def begin(kind: str) -> None:
            if (probe := probes[kind]) is not None and kind not in probers:
                probers[kind] = Prober(probe, self._attempt)

        begin("startup")
        while waiting.poll() is None:
            if self._sandbox.deleted.is_set():
                return "deleted"
            for kind in ("startup", "liveness"):
                if kind in probers and probers[kind].state.failed:
                    return f"the {kind} probe failed"
            if "startup" not in probers or probers["startup"].state.passed:
                if "startup" in probers:
                    probers["startup"].stop()
                begin("readiness")
                begin("liveness")
                self._set_ready("readiness" not in probers or probers["readiness"].state.passed)
            time.sleep(_TICK)
        return ""

    def _set_ready(self, ready: bool) -> None:
        if ready != (self.ready_since is not None):
            self.ready_since = time.monotonic() if ready else None

    def _attempt(self, probe: Probe) -> bool:
        return attempt(probe, self._sandbox.address, self.name)


def _check_not_root(image: str) -> None:
    user = image_user(image).partition(":")[0]
    if not user.isdigit() or user == "0":
        raise Refused(f"runAsNonRoot, and the user of the image {image} is {user or 'root'!r}, should be a number")


def _log(container: str) -> str:
    command = ["docker", "logs", container]
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True).stdout
