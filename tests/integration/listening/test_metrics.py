"""The exporter counts the jobs of listeners, as the Redis user that the documentation gives it."""

from __future__ import annotations

import redis
from prometheus_client import generate_latest
from prometheus_client.core import CollectorRegistry

from headrace.wire.keys import Keys
from headrace_worker.telemetry.queue_metrics import QueueCollector
from tests.support.acl import rules, user
from tests.support.stored_entries import open_job, store_entry

KEYS = Keys()


def scrape(server: redis.Redis, line: str) -> str:
    """Return what the exporter shows as the user `metrics` with the rights of a line."""
    options = server.connection_pool.connection_kwargs
    password = line.split()[3].removeprefix(">")
    server.execute_command("ACL", "SETUSER", *rules(line))
    try:
        with redis.Redis(
            host=options["host"], port=options["port"], username="metrics", password=password
        ) as reader:
            registry = CollectorRegistry()
            registry.register(QueueCollector(lambda: reader))
            return generate_latest(registry).decode()
    finally:
        server.execute_command("ACL", "DELUSER", "metrics")


def test_the_documented_user_counts_ended_jobs_and_jobs_under_way(server: redis.Redis):
    store_entry(server, "a", name="orders")
    store_entry(server, "b", name="reports")
    open_job(server, "c")
    shown = scrape(server, user("metrics"))
    assert 'headrace_listener_jobs{state="open"} 1.0' in shown
    assert 'headrace_listener_jobs{state="waiting"} 2.0' in shown


def test_a_user_who_may_not_count_them_sees_the_other_metrics(server: redis.Redis):
    line = user("metrics").replace(f" (-@all +zcard %R~{KEYS.listen_open} %R~{KEYS.listen_due})", "")
    assert line != user("metrics")
    shown = scrape(server, line)
    assert "headrace_listener_jobs" not in shown
    assert "headrace_redis_up 1.0" in shown
