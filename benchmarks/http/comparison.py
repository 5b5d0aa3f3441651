"""Every server under the same load, in turns: requests a second, processor time of all processes, latencies."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.http.load import Config
from benchmarks.http.models import TITLES
from benchmarks.http.running import WAYS, Server, Site, WayFailed, wait_until_it_predicts
from benchmarks.http.sizes import Sizes

_ROOT = Path(__file__).parents[2]
_TIMEOUT = 300
#: The loads of a server: many connections, and one.
MANY, SINGLE = "many", "single"


class Comparison:
    """The measurements of all servers."""

    def __init__(self, site: Site, sizes: Sizes) -> None:
        self._site, self._sizes = site, sizes
        self._rows = site.models.rows.tolist()
        self.left_out: dict[str, str] = {}
        self._turns: dict[str, list[dict[str, Any]]] = {}

    def run(self, ways: list[str]) -> dict[str, Any]:
        """Measure every server once a round, the order reversed in each second round; return the results."""
        for number in range(self._sizes.rounds):
            for name in ways if number % 2 == 0 else ways[::-1]:
                if name not in self.left_out:
                    print(f"round {number + 1} of {self._sizes.rounds}: {WAYS[name].title}", file=sys.stderr)
                    self._turn(name)
        return {
            "connections": self._sizes.connections,
            "ways": [self._result(name) for name in ways if name in self._turns],
            "left_out": [
                {"name": name, "title": WAYS[name].title, "reason": reason}
                for name, reason in self.left_out.items()
            ],
        }

    def _turn(self, name: str) -> None:
        try:
            with WAYS[name].start(self._site) as server:
                wait_until_it_predicts(self._site, server)
                turn = {model: self._measure(server, model) for model in TITLES}
        except WayFailed as reason:
            # Its earlier turns go too: all medians are over the same number of turns.
            self._turns.pop(name, None)
            self.left_out[name] = str(reason)
            print(f"{WAYS[name].title} is left out: {reason}", file=sys.stderr)
        else:
            self._turns.setdefault(name, []).append(turn)

    def _measure(self, server: Server, model: str) -> dict[str, Any]:
        loads = {}
        for name, connections in ((MANY, self._sizes.connections), (SINGLE, 1)):
            run_load(server, model, self._rows, connections, self._sizes.warm_up_seconds)
            loads[name] = run_load(server, model, self._rows, connections, self._sizes.seconds)
        return loads

    def _result(self, name: str) -> dict[str, Any]:
        """Return the medians of a server."""
        turns = self._turns[name]
        row: dict[str, Any] = {
            "name": name,
            "title": WAYS[name].title,
            "settings": WAYS[name].settings,
            "turns": turns,
        }
        row["models"] = {
            model: {
                load: {
                    number: statistics.median(turn[model][load][number] for turn in turns)
                    for number in ("requests_per_second", "cpu_us", "p50_ms", "p99_ms")
                }
                | {
                    "parts_us": {
                        process: statistics.median(turn[model][load]["parts_us"][process] for turn in turns)
                        for process in turns[0][model][load]["parts_us"]
                    }
                }
                for load in (MANY, SINGLE)
            }
            for model in TITLES
        }
        return row


def run_load(
    server: Server, model: str, rows: list[list[float]], connections: int, seconds: float
) -> dict[str, Any]:
    """Put a server under load; return what the load measured, and the server's processor time for a request.

    Raises WayFailed if a request was not answered with 200.
    """
    path = server.path_of(model, connections)
    config = Config(server.port, path, server.bodies(rows), connections, seconds)
    before = server.cpu()
    completed = subprocess.run(
        [sys.executable, "-m", "benchmarks.http.load", "-"],
        cwd=_ROOT,
        input=json.dumps(config._asdict()),
        capture_output=True,
        text=True,
        timeout=_TIMEOUT,
        check=False,
    )
    after = server.cpu()
    if completed.returncode:
        raise WayFailed(f"the load ended with an error: {completed.stderr.strip()[-300:]}")
    measured: dict[str, Any] = json.loads(completed.stdout)
    count = measured["requests"]
    if measured["statuses"].keys() - {"200"} or measured["lost"] or not count:
        raise WayFailed(f"it answered {measured['statuses']}, and {measured['lost']} connections were lost")
    parts = {process: 1e6 * (after[process] - before[process]) / count for process in before}
    return measured | {
        "requests_per_second": count / measured["seconds"],
        "parts_us": parts,
        "cpu_us": sum(parts.values()),
        "load_cpu_us": 1e6 * measured.pop("own_cpu_seconds") / count,
    }
