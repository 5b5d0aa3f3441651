"""kombu's Redis transport and Celery's Redis backend on a Redis Cluster, which neither has.

`headrace.connection.celery` names both where the address is a `cluster://`. The nodes stand in the transport
option `cluster_nodes`; user, password and TLS are Celery's own settings.
"""

from __future__ import annotations

from typing import Any

import redis
from celery.backends.redis import RedisBackend
from kombu.transport import redis as kombu_redis

from headrace.connection.cluster import KombuConnection, KombuTLSConnection
from headrace.connection.slots import SlotPrimary

#: The name of the option with host and port of each node.
NODES_OPTION = "cluster_nodes"
#: The transport, as kombu takes it, and the beginning of the URL of the backend, as Celery takes it.
TRANSPORT, BACKEND = f"{__name__}:ClusterTransport", f"{__name__}:ClusterBackend+"


def _to_primary(options: dict[str, Any], nodes: Any, prefix: str) -> dict[str, Any]:
    """Return a pool's options with the nodes in place of a host and a port."""
    others = {name: value for name, value in options.items() if name not in {"host", "port"}}
    return {**others, "slot": SlotPrimary([(host, port) for host, port in nodes], prefix)}


class ClusterPools:
    """Mixed into kombu's channel: its pools connect to the node that serves the key prefix."""

    from_transport_options = (*kombu_redis.Channel.from_transport_options, NODES_OPTION)
    connection_class, connection_class_ssl = KombuConnection, KombuTLSConnection
    #: Transport option: host and port of each node.
    cluster_nodes: Any = ()

    def _connparams(self: Any, asynchronous: bool = False) -> dict[str, Any]:
        options = super()._connparams(asynchronous)  # type: ignore[misc]  # of kombu's channel
        return _to_primary(options, self.cluster_nodes, self.global_keyprefix)


class ClusterChannel(ClusterPools, kombu_redis.Channel):  # type: ignore[misc]  # kombu has no types
    """kombu's channel on a cluster."""


class ClusterTransport(kombu_redis.Transport):  # type: ignore[misc]  # kombu has no types
    """kombu's transport on a cluster."""

    Channel = ClusterChannel


class ClusterBackend(RedisBackend):  # type: ignore[misc]  # Celery has no types here
    """Celery's result backend on a cluster."""

    def _get_pool(self, **params: Any) -> redis.ConnectionPool:
        options = self._transport_options
        has_tls = issubclass(params.get("connection_class", redis.Connection), redis.SSLConnection)
        params["connection_class"] = KombuTLSConnection if has_tls else KombuConnection
        return redis.ConnectionPool(
            **_to_primary(params, options[NODES_OPTION], options.get("global_keyprefix", ""))
        )
