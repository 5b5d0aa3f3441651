"""Redis found by Sentinel: pools whose new connections go to the server that is the primary at that moment."""

from __future__ import annotations

from collections import UserDict
from typing import Any

from redis.asyncio import BlockingConnectionPool as AsyncBlockingConnectionPool
from redis.asyncio.sentinel import Sentinel as AsyncSentinel
from redis.asyncio.sentinel import SentinelConnectionPool as AsyncSentinelConnectionPool
from redis.sentinel import Sentinel, SentinelConnectionPool

from headrace.connection.bounded import bound_connections
from headrace.connection.bounded_pool import BoundedPool
from headrace.connection.url import Address

#: Seconds after which a Sentinel that has not replied is skipped for the next.
_SENTINEL_TIMEOUT_SECONDS = 1.0


class SentinelPool(SentinelConnectionPool, BoundedPool):
    """A bounded pool of connections to the primary. `options` are those of redis-py's pools."""

    def __init__(self, address: Address, **options: Any) -> None:
        sentinels = Sentinel(  # type: ignore[no-untyped-call]  # redis-py has no type for it
            address.sentinels, sentinel_kwargs=sentinel_options(address)
        )
        for client in sentinels.sentinels:
            bound_connections(client.connection_pool)
        super().__init__(  # type: ignore[no-untyped-call]  # as above
            address.master_name, sentinels, **(options | _primary_options(address))
        )

    def disconnect(self, inuse_connections: bool = True) -> None:
        """Close the idle connections; with `inuse_connections`, all of them and those to the Sentinels."""
        super().disconnect(inuse_connections)
        if inuse_connections:
            self.sentinel_manager.close()


class AsyncSentinelPool(AsyncSentinelConnectionPool, AsyncBlockingConnectionPool):
    """`SentinelPool` for asyncio."""

    def __init__(self, address: Address, **options: Any) -> None:
        sentinels = AsyncSentinel(  # type: ignore[no-untyped-call]  # as above
            address.sentinels, sentinel_kwargs=sentinel_options(address)
        )
        for client in sentinels.sentinels:
            bound_connections(client.connection_pool)
        super().__init__(  # type: ignore[no-untyped-call]  # as above
            address.master_name, sentinels, **(options | _primary_options(address))
        )

    async def disconnect(self, inuse_connections: bool = True) -> None:
        """Close connections as `SentinelPool.disconnect`."""
        await super().disconnect(inuse_connections)
        if inuse_connections:
            await self.sentinel_manager.aclose()


def _primary_options(address: Address) -> dict[str, Any]:
    """Return the URL's options for connections to the primary, without its host and port."""
    located_by_sentinel = {"host", "port", "connection_class"}
    options = {name: value for name, value in address.options.items() if name not in located_by_sentinel}
    return {"ssl": bool(address.tls)} | options


def sentinel_options(address: Address) -> dict[str, Any]:
    """Return redis-py's options for connections to the Sentinels. Timeouts are short, as there are others."""
    timeouts = {
        "socket_connect_timeout": _SENTINEL_TIMEOUT_SECONDS,
        "socket_timeout": _SENTINEL_TIMEOUT_SECONDS,
        "retry": None,
    }
    return {**timeouts, **address.sentinel_login, **({"ssl": True, **address.tls} if address.tls else {})}


class SentinelOptions(UserDict[str, Any]):
    """`sentinel_options` for kombu and Celery, which print options (`celery inspect`): this prints names only."""

    def __init__(self, address: Address) -> None:
        super().__init__(sentinel_options(address))

    def __json__(self) -> list[str]:
        """Return the names, without values. kombu's JSON encoder calls this."""
        return list(self)

    def __repr__(self) -> str:
        return f"SentinelOptions({', '.join(self)})"
