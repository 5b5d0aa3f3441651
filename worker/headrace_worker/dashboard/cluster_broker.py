"""The lengths of queues for Flower's Broker page, in a Redis Cluster, which Flower does not know."""

from __future__ import annotations

from typing import Any

from flower.utils.broker import RedisBase

from headrace.connection.connect import connect_async
from headrace.settings import Settings


class ClusterBroker(RedisBase):  # type: ignore[misc]  # Flower has no types
    """Flower's reader of queues, over a connection to the node that serves the key prefix.

    Flower makes one for each page, and closes its connections behind it.
    """

    def __init__(self, settings: Settings, broker_url: str, *args: Any, **options: Any) -> None:
        super().__init__(broker_url, *args, **options)
        self.redis = connect_async(settings)
