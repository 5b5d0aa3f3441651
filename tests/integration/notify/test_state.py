"""The exporter, the doctor and Flower show the notices that wait, and the last error of each endpoint."""

from __future__ import annotations

import redis
from prometheus_client import generate_latest
from prometheus_client.core import CollectorRegistry

from headrace.connection.commands import execute, run
from headrace.inspection.notices import LATE_MS, NoticeState, read_notices
from headrace.monitor.overview import Monitor
from headrace.settings import Settings
from headrace.wire.keys import Keys
from headrace_worker.dashboard.queue_page import queue_page
from headrace_worker.telemetry.queue_metrics import QueueCollector
from tests.support.acl import rules, user
from tests.support.notify_site import Site
from tests.support.stored_notices import open_job, store_notice
from tests.support.waiting import wait_until
from tests.support.webhooks import Answer, Receiver, endpoint

KEYS = Keys()


def plant(server: redis.Redis) -> int:
    """Store two notices, one of them late, and a job under way. Return the server's unix milliseconds."""
    now_ms = server.time()[0] * 1000
    store_notice(server, "late", due_ms=now_ms - 2 * LATE_MS)
    store_notice(server, "later", due_ms=now_ms + LATE_MS)
    open_job(server, "running")
    return int(now_ms)


def test_the_exporter_counts_notices_by_state(site: Site):
    plant(site.server)
    registry = CollectorRegistry()
    registry.register(QueueCollector(lambda: site.server))
    shown = generate_latest(registry).decode()
    for state, count in (("open", 1), ("waiting", 2), ("late", 1)):
        assert f'headrace_notices{{state="{state}"}} {count}.0' in shown


def test_a_failing_endpoint_is_shown_with_its_last_error(site: Site):
    with Receiver(lambda *_: Answer(500)) as receiver:
        with site.notifier(endpoint(receiver.url), HEADRACE_NOTIFY_SCHEDULE="0,600"):
            site.end_jobs("a")
            wait_until(lambda: site.server.exists(KEYS.endpoints))
        with Monitor(Settings(redis_url=site.url)) as monitor:
            notices = queue_page(monitor.read()).notices
    assert notices is not None
    assert (notices.waiting, notices.errors["orders"].error) == (1, "http-500")
    assert str(receiver.url) not in str(notices)


def test_the_documented_users_read_the_notices_and_others_see_none(site: Site):
    now_ms = plant(site.server)
    counted = NoticeState(open=1, waiting=2, late=1)
    try:
        for name, expected in (("operator", counted), ("flower", counted), ("metrics", counted), ("celery", None)):
            site.server.execute_command("ACL", "SETUSER", *rules(user(name)))
            password = user(name).split()[3].removeprefix(">")
            options = site.server.connection_pool.connection_kwargs
            with redis.Redis(
                host=options["host"], port=options["port"], username=name, password=password
            ) as reader:
                operation = read_notices(KEYS, now_ms)
                assert run(lambda command, reader=reader: execute(reader, command), operation) == expected, name
    finally:
        site.server.execute_command("ACL", "DELUSER", "operator", "flower", "metrics", "celery")
