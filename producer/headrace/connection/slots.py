"""Find the node of a Redis Cluster that serves a slot, from the replies of nodes and without I/O."""

from __future__ import annotations

import random
from collections.abc import Generator, Iterable, Mapping
from typing import Any, NamedTuple

from redis import exceptions
from redis.crc import key_slot

from headrace.connection.cluster_errors import NotACluster, SlotNotServed
from headrace.connection.errors import is_permanent, is_read_only

#: What a node announces in place of a host name that it does not know.
_UNKNOWN_HOST = "?"


class Node(NamedTuple):
    """The address of a node."""

    host: str
    port: int


class SlotPrimary:
    """The primary of one slot, as the connections of a pool know it. Safe for threads: it is a hint, and no more.

    `seeds` are the nodes of the URL, `prefix` is the key prefix, whose hash tag decides the slot.
    """

    def __init__(self, seeds: Iterable[tuple[str, int]], prefix: str) -> None:
        self.slot = key_slot(prefix.encode())
        self._seeds = tuple(Node(*seed) for seed in seeds)
        #: The nodes that the last answer named.
        self._nodes: tuple[Node, ...] = ()
        #: The primary, if known; and the node that was it and failed.
        self._primary: Node | None = None
        self._failed: Node | None = None

    @property
    def known_primary(self) -> Node | None:
        """The primary, if a connection to it was made or a node named it."""
        return self._primary

    def search(self) -> Generator[Node, Any, Node]:
        """Return the primary. Yields nodes to ask, and is sent their replies to CLUSTER SLOTS.

        An answer that still names the node that failed is the last resort: others may know its successor. Raises
        SlotNotServed, and what a node answers that does not take the user.
        """
        if self._primary is not None:
            return self._primary
        failure: exceptions.RedisError | None = None
        former: Node | None = None
        for node in self._candidates():
            try:
                reply = yield node
            except exceptions.RedisError as error:
                if is_permanent(error) or isinstance(error, NotACluster):
                    raise
                failure = error
                continue
            primary, nodes = parse_slots(reply, self.slot, node)
            self._nodes = nodes or self._nodes
            if primary is not None and primary != self._failed:
                self._primary = primary
                return primary
            former = primary or former
        if former is not None:
            return former
        raise SlotNotServed(f"no node names a primary of slot {self.slot}") from failure

    def _candidates(self) -> list[Node]:
        """Return the nodes to ask, in random order; the one that failed is the last."""
        nodes = list(dict.fromkeys((*self._nodes, *self._seeds)))
        random.shuffle(nodes)
        return sorted(nodes, key=lambda node: node == self._failed)

    def connected(self, node: Node) -> None:
        """Note that a node accepted a connection as the primary."""
        self._primary, self._failed = node, None

    def failed(self, node: Node) -> None:
        """Note that a node cannot be reached."""
        self._failed = node
        if self._primary == node:
            self._primary = None

    def refused(self, error: exceptions.RedisError, node: Node) -> None:
        """Note that a node does not serve the slot. A MOVED names the node that does."""
        if self._primary != node:
            return  # another connection has learnt of it before
        self._primary = None
        if isinstance(error, exceptions.MovedError) and error.host != _UNKNOWN_HOST:
            self._primary = Node(error.host or node.host, error.port)

    def __repr__(self) -> str:
        return f"SlotPrimary({self.slot}, {self._primary})"


def parse_slots(reply: Any, slot: int, asked_node: Node) -> tuple[Node | None, tuple[Node, ...]]:
    """Return the primary of a slot, None if it has none, and all nodes in a reply to CLUSTER SLOTS."""
    primary: Node | None = None
    nodes: list[Node] = []
    for first, last, *served_by in reply:
        addresses = [_parse_node(node, asked_node) for node in served_by]
        nodes += [address for address in addresses if address is not None]
        if int(first) <= slot <= int(last) and addresses:
            primary = addresses[0]
    return primary, tuple(dict.fromkeys(nodes))


def parse_primaries(reply: Any, asked_node: Node) -> list[Node]:
    """Return the primaries of all slots in a reply to CLUSTER SLOTS."""
    nodes = [_parse_node(primary, asked_node) for _, _, primary, *_ in reply]
    return list(dict.fromkeys(node for node in nodes if node is not None))


def _parse_node(node: Any, asked_node: Node) -> Node | None:
    """Return the address of a node: host, port, id and, from Redis 7 on, other names of the host.

    A host may be missing: it is then that of the node that was asked. None if the host is unknown.
    """
    host, port, _, *others = node
    if _text(host) == _UNKNOWN_HOST:
        names = others[0] if others else ()
        pairs = names.items() if isinstance(names, Mapping) else zip(names[::2], names[1::2], strict=False)
        host = next((value for name, value in pairs if _text(name) == "ip"), None)
        if not host:
            return None
    return Node(_text(host) or asked_node.host, int(port))


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value or "")


def leads_elsewhere(error: exceptions.RedisError) -> bool:
    """Decide whether an error says that another node serves the slot, or will do so soon."""
    return (
        isinstance(
            error,
            exceptions.AskError  # MOVED is one of them
            | exceptions.TryAgainError
            | exceptions.ClusterDownError
            | exceptions.MasterDownError
            | exceptions.BusyLoadingError,
        )
        or is_read_only(error)
        # A primary that became a replica ends what blocks there.
        or str(error).startswith("UNBLOCKED")
    )
