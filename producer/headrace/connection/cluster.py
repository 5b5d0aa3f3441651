"""A Redis Cluster: connections to the node that serves the slot of the key prefix.

All keys of an installation lie in one slot, as its prefix has a hash tag. So one node at a time serves it all, and
a connection is to that node, which any node names (`CLUSTER SLOTS`). A node that no longer serves the slot answers
MOVED; the connection then ends as a lost one, and the next one is to the node that serves the slot now. Callers
repeat what they sent, as after any lost connection.

While a slot moves, keys are on two nodes, and a script that uses keys of both is refused (TRYAGAIN, ASK). Such a
command is repeated too, until the slot has moved.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import redis
from redis import exceptions

from headrace.connection.bounded import (
    AsyncBoundedConnection,
    AsyncBoundedTLSConnection,
    BoundedConnection,
    BoundedTLSConnection,
)
from headrace.connection.call_limit import limit_call
from headrace.connection.cluster_errors import NotACluster, SlotMoved
from headrace.connection.commands import run, run_async
from headrace.connection.errors import is_permanent
from headrace.connection.slots import Node, SlotPrimary, leads_elsewhere

#: Seconds after which a node that has not answered is skipped for the next.
_NODE_TIMEOUT_SECONDS = 1.0


def _describe_refusal(error: exceptions.RedisError, node: Node) -> str:
    code = getattr(error, "status_code", None)
    return f"{node.host}:{node.port} answered {code + ' ' if code else ''}{error}"


def _asking_options(options: Mapping[str, Any], node: Node) -> dict[str, Any]:
    """Return the options of a connection that asks a node, from those of a connection to the primary."""
    # redis-py ties its maintenance notices to RESP3 and to a pool.
    others = {name: value for name, value in options.items() if not name.startswith(("maint_", "orig_"))}
    timeouts = {"socket_connect_timeout": _NODE_TIMEOUT_SECONDS, "socket_timeout": _NODE_TIMEOUT_SECONDS}
    return {**others, **timeouts, "retry": None, "protocol": 2, "host": node.host, "port": node.port}


def _read_refusal(error: exceptions.ResponseError) -> exceptions.RedisError:
    return NotACluster(str(error)) if "cluster support disabled" in str(error) else error


class ClusterManaged:
    """Mixed into a connection of redis-py: it opens to the primary of `slot`, and ends when that is another."""

    #: The class of the connections that ask nodes.
    _asking_class: Any = BoundedConnection

    def __init__(self, *, slot: SlotPrimary, **options: Any) -> None:
        self._slot, self._options = slot, options
        super().__init__(**options)

    def connect_check_health(self: Any, *args: Any, **options: Any) -> None:
        """Open the connection, as redis-py's method."""
        if self._sock is not None:
            return
        with limit_call(self.socket_connect_timeout):
            node = run(self._ask, self._slot.search())
            self.host, self.port = node
            try:
                super().connect_check_health(*args, **options)  # type: ignore[misc]  # of redis-py's class
            except (exceptions.ConnectionError, exceptions.TimeoutError) as error:
                if not is_permanent(error):
                    self._slot.failed(node)
                raise
        self._slot.connected(node)

    def _ask(self: Any, node: Node) -> Any:
        connection = self._asking_class(**_asking_options(self._options, node))
        try:
            connection.connect()
            connection.send_command("CLUSTER", "SLOTS")
            return connection.read_response()
        except exceptions.ResponseError as error:
            raise _read_refusal(error) from None
        finally:
            connection.disconnect()

    def read_response(self: Any, *args: Any, **options: Any) -> Any:
        """Read a reply, as redis-py's method."""
        try:
            return super().read_response(*args, **options)  # type: ignore[misc]  # as above
        except (exceptions.ResponseError, exceptions.BusyLoadingError) as error:
            if not leads_elsewhere(error):
                raise
            node = Node(self.host, self.port)
            self._slot.refused(error, node)
            self.disconnect()
            raise SlotMoved(_describe_refusal(error, node)) from error


class ClusterConnection(ClusterManaged, BoundedConnection):
    """A connection over TCP to the primary of a slot."""


class ClusterTLSConnection(ClusterManaged, BoundedTLSConnection):
    """A connection over TLS to the primary of a slot."""

    _asking_class = BoundedTLSConnection


class KombuConnection(ClusterManaged, redis.Connection):
    """A connection over TCP for kombu and Celery, which limit no call."""


class KombuTLSConnection(ClusterManaged, redis.SSLConnection):
    """A connection over TLS for kombu and Celery."""

    _asking_class = BoundedTLSConnection


class AsyncClusterManaged:
    """`ClusterManaged` for asyncio."""

    _asking_class: Any = AsyncBoundedConnection

    def __init__(self, *, slot: SlotPrimary, **options: Any) -> None:
        self._slot, self._options = slot, options
        super().__init__(**options)

    async def connect_check_health(self: Any, *args: Any, **options: Any) -> None:
        """Open the connection, as redis-py's method."""
        if self.is_connected:
            return
        node = await run_async(self._ask, self._slot.search())
        self.host, self.port = node
        try:
            await super().connect_check_health(*args, **options)  # type: ignore[misc]  # of redis-py's class
        except (exceptions.ConnectionError, exceptions.TimeoutError) as error:
            if not is_permanent(error):
                self._slot.failed(node)
            raise
        self._slot.connected(node)

    async def _ask(self: Any, node: Node) -> Any:
        connection = self._asking_class(**_asking_options(self._options, node))
        try:
            await connection.connect()
            await connection.send_command("CLUSTER", "SLOTS")
            return await connection.read_response()
        except exceptions.ResponseError as error:
            raise _read_refusal(error) from None
        finally:
            await connection.disconnect(nowait=True)

    async def read_response(self: Any, *args: Any, **options: Any) -> Any:
        """Read a reply, as redis-py's method."""
        try:
            return await super().read_response(*args, **options)  # type: ignore[misc]  # as above
        except (exceptions.ResponseError, exceptions.BusyLoadingError) as error:
            if not leads_elsewhere(error):
                raise
            node = Node(self.host, self.port)
            self._slot.refused(error, node)
            await self.disconnect(nowait=True)
            raise SlotMoved(_describe_refusal(error, node)) from error


class AsyncClusterConnection(AsyncClusterManaged, AsyncBoundedConnection):
    """A connection over TCP to the primary of a slot, for asyncio."""


class AsyncClusterTLSConnection(AsyncClusterManaged, AsyncBoundedTLSConnection):
    """A connection over TLS to the primary of a slot, for asyncio."""

    _asking_class = AsyncBoundedTLSConnection
