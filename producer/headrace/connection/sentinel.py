"""Redis found by Sentinel: pools whose connections go to whichever server is the primary when they are made."""

from __future__ import annotations

from collections import UserDict
from typing import Any

from redis import BlockingConnectionPool
from redis.asyncio import BlockingConnectionPool as AsyncBlockingConnectionPool
from redis.asyncio.sentinel import Sentinel as AsyncSentinel
from redis.asyncio.sentinel import SentinelConnectionPool as AsyncSentinelConnectionPool
from redis.sentinel import Sentinel, SentinelConnectionPool

from headrace.connection.url import Address

#: Seconds after which a Sentinel that has not answered is passed over for the next.
_ANSWERS_WITHIN = 1.0


class SentinelPool(SentinelConnectionPool, BlockingConnectionPool):
    """Connections to the primary; who needs one too many waits for it. `options` are those of redis-py's pools."""

    def __init__(self, address: Address, **options: Any) -> None:
        sentinels = Sentinel(  # type: ignore[no-untyped-call]  # redis-py gives it no types
            address.sentinels, sentinel_kwargs=sentinel_options(address)
        )
        super().__init__(  # type: ignore[no-untyped-call]  # as above
            address.master_name, sentinels, **(options | _of_primary(address))
        )

    def disconnect(self, inuse_connections: bool = True) -> None:
        """Close the connections, and with the last of them those to the Sentinels."""
        super().disconnect(inuse_connections)
        if inuse_connections:
            self.sentinel_manager.close()


class AsyncSentinelPool(AsyncSentinelConnectionPool, AsyncBlockingConnectionPool):
    """`SentinelPool`, for asyncio."""

    def __init__(self, address: Address, **options: Any) -> None:
        sentinels = AsyncSentinel(  # type: ignore[no-untyped-call]  # as above
            address.sentinels, sentinel_kwargs=sentinel_options(address)
        )
        super().__init__(  # type: ignore[no-untyped-call]  # as above
            address.master_name, sentinels, **(options | _of_primary(address))
        )

    async def disconnect(self, inuse_connections: bool = True) -> None:
        """As `SentinelPool.disconnect`."""
        await super().disconnect(inuse_connections)
        if inuse_connections:
            await self.sentinel_manager.aclose()


def _of_primary(address: Address) -> dict[str, Any]:
    """What the URL says of connections to the primary: all but where it is, which the Sentinels say."""
    places = {"host", "port", "connection_class"}
    return {"ssl": bool(address.tls)} | {n: value for n, value in address.options.items() if n not in places}


def sentinel_options(address: Address) -> dict[str, Any]:
    """Arguments of redis-py's connections to the Sentinels: quick to give up one, as there are others."""
    once = {"socket_connect_timeout": _ANSWERS_WITHIN, "socket_timeout": _ANSWERS_WITHIN, "retry": None}
    return {**once, **address.sentinel_login, **({"ssl": True, **address.tls} if address.tls else {})}


class SentinelOptions(UserDict[str, Any]):
    """`sentinel_options` for kombu and Celery, which show options to who asks, as `celery inspect` does."""

    def __init__(self, address: Address) -> None:
        super().__init__(sentinel_options(address))

    def __json__(self) -> list[str]:
        """The names alone; kombu's encoder asks for this."""
        return list(self)

    def __repr__(self) -> str:
        return f"SentinelOptions({', '.join(self)})"
