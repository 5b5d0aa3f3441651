"""A plain Celery app on the Redis of the settings."""

from __future__ import annotations

from typing import Any

from celery import Celery

from headrace.connection.keepalive import KEEPALIVE_OPTIONS
from headrace.connection.sentinel import SentinelOptions
from headrace.connection.url import check_cluster_prefix, explain_bad_options, parse_address
from headrace.settings import Settings
from headrace.wire.queues import PRIORITY_STEPS
from headrace.wire.routing import route_job


def create_celery_app(settings: Settings) -> Celery:
    """Create a Celery app that sends jobs and reads outcomes in Celery's own ways."""
    address = parse_address(settings.redis_url)
    with explain_bad_options(address):
        url, tls = address.celery_url, address.tls
    located: dict[str, Any] = {}
    broker: dict[str, Any] = {}
    backend_url = url
    if address.sentinels:
        located = {"master_name": address.master_name, "sentinel_kwargs": SentinelOptions(address)}
    elif address.nodes:
        check_cluster_prefix(settings.key_prefix)
        from headrace.connection.cluster_celery import BACKEND, NODES_OPTION, TRANSPORT

        located = {NODES_OPTION: address.nodes}
        broker, backend_url = {"broker_transport": TRANSPORT}, BACKEND + url
    app = Celery("headrace", broker=url, backend=backend_url, set_as_current=False)
    app.conf.update(
        **broker,
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
        # Without them, Celery's backend waits for a silent Redis for 120 s, and to connect for minutes.
        redis_socket_timeout=settings.command_timeout,
        redis_socket_connect_timeout=settings.connect_timeout,
        broker_transport_options={
            "global_keyprefix": settings.key_prefix,
            "priority_steps": list(PRIORITY_STEPS),
            "queue_order_strategy": "priority",
            "socket_connect_timeout": settings.connect_timeout,
            "socket_keepalive": True,
            "socket_keepalive_options": KEEPALIVE_OPTIONS,
            **located,
        },
        result_backend_transport_options=(
            ({"global_keyprefix": settings.key_prefix} if settings.key_prefix else {}) | located
        ),
    )
    return app
