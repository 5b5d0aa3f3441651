"""The tables of the benchmarks."""

from __future__ import annotations

from benchmarks import report


def test_memory_of_a_job_is_shown_for_deep_queues_only() -> None:
    row = {"jobs_per_second": 100.0, "of_shallow": 1.0, "redis_cpu_us": 18.0, "message_bytes": 1583.0}
    rows = [row | {"depth": 1_000.0, "memory_bytes": -6920.0}, row | {"depth": 1e6, "memory_bytes": 1825.0}]

    _, shallow, deep = report.depths({"depths": {"servers": [{"server": "Redis", "rows": rows}]}})

    assert shallow == ["Redis", "1,000", "100", "1.00", "18", "", "1,583"]
    assert deep == ["Redis", "1,000,000", "100", "1.00", "18", "1,825", "1,583"]
