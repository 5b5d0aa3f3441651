"""A plain Celery app on the Redis of the settings."""

from __future__ import annotations

from typing import Any

from celery import Celery

from headrace.connection.sentinel import SentinelOptions
from headrace.connection.url import explain_bad_options, parse_address
from headrace.settings import Settings
from headrace.wire.keys import PRIORITY_STEPS
from headrace.wire.routing import route_job


def create_celery_app(settings: Settings) -> Celery:
    """Create a Celery app that sends jobs and reads outcomes in Celery's own ways."""
    address = parse_address(settings.redis_url)
    with explain_bad_options(address):
        url, tls = address.celery_url, address.tls
    sentinel: dict[str, Any] = {}
    if address.sentinels:
        sentinel = {"master_name": address.master_name, "sentinel_kwargs": SentinelOptions(address)}
    app = Celery("headrace", broker=url, backend=url, set_as_current=False)
    app.conf.update(
        task_serializer="json",
        result_serializer="json",
        accept_content=["json"],
        result_accept_content=["json"],
        result_expires=settings.result_ttl,
        task_routes=(route_job,),
        broker_connection_retry_on_startup=True,
        # kombu runs EVAL for a queue that expires, which no Redis user of Headrace may.
        control_queue_expires=None,
        event_queue_expires=None,
        broker_use_ssl=tls,
        redis_backend_use_ssl=tls,
        broker_transport_options={
            "global_keyprefix": settings.key_prefix,
            "priority_steps": list(PRIORITY_STEPS),
            "queue_order_strategy": "priority",
            "socket_connect_timeout": settings.connect_timeout,
            **sentinel,
        },
        result_backend_transport_options=(
            ({"global_keyprefix": settings.key_prefix} if settings.key_prefix else {}) | sentinel
        ),
    )
    return app
