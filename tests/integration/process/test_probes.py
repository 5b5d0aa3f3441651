"""Kubelet, played with the probes of docs/reference/health.md, restarts no worker that waits or loads for long."""

from __future__ import annotations

import json
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from itertools import groupby
from pathlib import Path
from typing import Any

import joblib
import yaml

from headrace_worker.local.embedded_redis import EmbeddedRedis
from headrace_worker.local.stack import Child
from headrace_worker.packaging.package import package
from headrace_worker.store.store import Store
from tests.chart.pod_spec import Probe
from tests.chart.probing import Prober, attempt
from tests.support import ROOT, slow_models
from tests.support.connections import free_port
from tests.support.waiting import wait_until

#: By how much the periods are shorter here than on the page.
SPEED = 20
PAGE = ROOT / "docs" / "reference" / "health.md"


class PlayedProbe:
    """A probe of the page that runs against this machine, and what its attempts gave."""

    def __init__(self, name: str, port: int, speed: float = 1) -> None:
        fields = _probes_of_page()[name]
        self._probe = Probe(
            port=port,
            path=fields["httpGet"]["path"],
            period=fields["periodSeconds"] / speed,
            timeout=fields["timeoutSeconds"],
            failures=fields["failureThreshold"],
        )
        self.attempts: list[bool] = []
        self._prober = Prober(self._probe, self._attempt)

    def _attempt(self, probe: Probe) -> bool:
        self.attempts.append(attempt(probe, "127.0.0.1", ""))
        return self.attempts[-1]

    @property
    def passed(self) -> bool:
        return self._prober.state.passed

    @property
    def threshold_seconds(self) -> float:
        return self._probe.period * self._probe.failures

    @property
    def has_failed(self) -> bool:
        """True if the probe failed so often in a row that the container would have been restarted."""
        runs = (len(list(run)) for passed, run in groupby(self.attempts) if not passed)
        return max(runs, default=0) >= self._probe.failures

    def stop(self) -> None:
        self._prober.stop()
        self._prober.join()


def _probes_of_page() -> dict[str, Any]:
    block = re.search(r"```yaml\n(startupProbe.*?)```", PAGE.read_text(), re.DOTALL)
    assert block
    probes: dict[str, Any] = yaml.safe_load(block[1])
    return probes


def _reason(port: int) -> str:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/ready", timeout=5) as reply:
            return reply.read().decode().strip()
    except urllib.error.HTTPError as error:
        with error:
            return error.read().decode().strip()
    except OSError:
        return ""


def _slow_store(folder: Path) -> Path:
    """Make a store of one model that takes some seconds to load."""
    joblib.dump(slow_models.SlowToLoad().fit([[0.0, 0.0, 0.0]]), folder / "slow.joblib")
    (folder / "slow.json").write_text("[[1, 0, 0]]")
    store = Store(folder / "models")
    package(store, folder / "slow.joblib", name="slow", example=folder / "slow.json", trust_pickle=True)
    return store.path


def test_no_worker_is_restarted_that_loads_slowly_or_waits_for_redis(tmp_path: Path) -> None:
    port, models = free_port(), _slow_store(tmp_path)
    server = EmbeddedRedis("--appendfsync", "no", "--requirepass", "pa55")
    environ = {
        "HEADRACE_REDIS_URL": server.url.replace("redis://", "redis://:pa55@"),
        "HEADRACE_MODELS": str(models),
        "HEADRACE_METRICS_PORT": str(port),
        "HEADRACE_TRUST_PICKLE": "true",
        "PYTHONPATH": str(ROOT),
        slow_models.SECONDS: "4",
    }
    startup = PlayedProbe("startupProbe", port, SPEED / 4)
    worker = Child("worker", ["headrace.cli", "worker", "-c", "1"], environ, tmp_path / "worker.log")
    probes = [startup]

    def wait_for(condition: Callable[[], object]) -> None:
        wait_until(lambda: worker.check() or condition(), 120, worker.log.read_text)

    try:
        wait_for(lambda: startup.passed)
        startup.stop()
        readiness, liveness = (PlayedProbe(name, port, SPEED) for name in ("readinessProbe", "livenessProbe"))
        probes += [readiness, liveness]
        wait_for(lambda: _reason(port) == "the worker starts: it loads model slow version 1 (1 of 1)")
        reason = f"waits for Redis at 127.0.0.1:{server.port}, which cannot be reached"
        wait_for(lambda: _reason(port).startswith(f"the worker starts: it {reason}"))
        time.sleep(2 * liveness.threshold_seconds)
        assert not any(readiness.attempts)

        server.start()
        wait_for(lambda: _reason(port) == "all is well")
        wait_for(lambda: readiness.passed)
        server.kill()
        wait_for(lambda: _reason(port).startswith(f"the worker {reason}"))
        time.sleep(2 * liveness.threshold_seconds)
        assert readiness.passed
        assert "pa55" not in _reason(port) + worker.log.read_text()
    finally:
        for probe in probes:
            probe.stop()
        worker.stop()
        server.stop()
    assert [probe.has_failed for probe in (startup, liveness)] == [False, False]
    assert all(liveness.attempts)
    lines = [json.loads(line) for line in worker.log.read_text().splitlines() if line.startswith("{")]
    assert not [line for line in lines if "Traceback" in line["event"]]
