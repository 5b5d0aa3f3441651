"""The program that predicts with `AsyncClient` in many tasks: `python -m benchmarks.http.concurrent CONFIG`.

It prints its processor time for a prediction as JSON.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any, NamedTuple

import uvloop

from headrace import AsyncClient

_TIMEOUT = 120.0


class Config(NamedTuple):
    """Predictions of one client."""

    url: str
    model: str
    method: str
    rows: list[list[float]]
    #: Tasks, each with one prediction under way, and predictions of all of them.
    tasks: int
    predictions: int


async def _run(config: Config) -> dict[str, Any]:
    rows, each = config.rows, config.predictions // config.tasks
    async with AsyncClient(config.url) as client:

        async def predict(first: int, count: int) -> None:
            for number in range(first, first + count):
                row = rows[number % len(rows)]
                await client.predict(config.model, row, method=config.method, timeout=_TIMEOUT)

        await asyncio.gather(*(predict(task, 10) for task in range(config.tasks)))
        cpu, started = time.process_time(), time.perf_counter()
        await asyncio.gather(*(predict(task * each, each) for task in range(config.tasks)))
        cpu, elapsed = time.process_time() - cpu, time.perf_counter() - started
    count = each * config.tasks
    return {"predictions": count, "cpu_us": 1e6 * cpu / count, "predictions_per_second": count / elapsed}


if __name__ == "__main__":
    print(json.dumps(uvloop.run(_run(Config(**json.loads(sys.stdin.read()))))))
