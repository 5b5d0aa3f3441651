"""A pytest plugin that replaces kombu's Redis transport, and expects the exceptions to fail."""

from __future__ import annotations

import kombu.transport
import kombu.transport.redis as kombu_redis
import pytest
from exceptions import EXCEPTIONS, mark_exceptions

from headrace_worker import transport
from headrace_worker.transport.qos import QoS

kombu.transport.TRANSPORT_ALIASES.update(
    {
        "redis": "headrace_worker.transport:Transport",
        "rediss": "headrace_worker.transport:Transport",
        "sentinel": "headrace_worker.transport:SentinelTransport",
    }
)
kombu_redis.Transport, kombu_redis.SentinelTransport = transport.Transport, transport.SentinelTransport
kombu_redis.Channel, kombu_redis.SentinelChannel = transport.Channel, transport.SentinelChannel
kombu_redis.QoS, kombu_redis.MultiChannelPoller = QoS, transport.Poller


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Expect the exceptions to fail."""
    mark_exceptions(items, EXCEPTIONS)
