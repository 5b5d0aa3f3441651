"""Probes of a running container: their attempts, and what the attempts so far decide."""

from __future__ import annotations

import http.client
import subprocess
import threading
from collections.abc import Callable

from tests.chart.pod_spec import Probe


class ProbeState:
    """The count of a probe's attempts. It has neither passed nor failed before enough of them are alike."""

    def __init__(self, probe: Probe) -> None:
        self._probe = probe
        self._alike, self._last = 0, False
        self.passed = self.failed = False

    def record(self, success: bool) -> None:
        self._alike = self._alike + 1 if success == self._last else 1
        self._last = success
        if self._alike >= (self._probe.successes if success else self._probe.failures):
            self.passed, self.failed = success, not success


class Prober:
    """A thread that repeats a probe until it is stopped."""

    def __init__(self, probe: Probe, attempt: Callable[[Probe], bool]) -> None:
        self.state = ProbeState(probe)
        self._probe, self._attempt = probe, attempt
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._repeat, name="prober", daemon=True)
        self._thread.start()

    def _repeat(self) -> None:
        pause = self._probe.initial_delay
        while not self._stopped.wait(pause):
            success = self._attempt(self._probe)
            if not self._stopped.is_set():
                self.state.record(success)
            pause = self._probe.period

    def stop(self) -> None:
        self._stopped.set()

    def join(self) -> None:
        self._thread.join(60)


def attempt(probe: Probe, address: str, container: str) -> bool:
    """Try a probe once, as kubelet: by a connection from the node, or by a command in the container."""
    if probe.command:
        command = ["docker", "exec", container, *probe.command]
        try:
            return subprocess.run(command, capture_output=True, timeout=probe.timeout).returncode == 0
        except subprocess.TimeoutExpired:
            return False
    connection = http.client.HTTPConnection(address, probe.port, timeout=probe.timeout)
    try:
        connection.connect()
        if not probe.path:
            return True
        connection.request("GET", probe.path, headers={"User-Agent": "kube-probe/1", "Connection": "close"})
        return 200 <= connection.getresponse().status < 400
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
