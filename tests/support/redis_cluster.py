"""A real Redis Cluster for tests: three primaries with a replica each, on loopback."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import redis
from redis.crc import key_slot

from headrace_worker.local.embedded_redis import EmbeddedRedis
from tests.support.waiting import wait_until

#: The number of slots of every cluster.
SLOTS = 16_384
#: Milliseconds after which nodes consider a silent one as failing.
NODE_TIMEOUT_MS = 1500
#: The key prefix of an installation that sets none.
PREFIX = "{headrace}:"
#: The slot of all keys with this prefix.
OURS = key_slot(PREFIX.encode())


def free_node_port() -> int:
    """Return a free port whose cluster bus, 10,000 higher, is a port too."""
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
        if port < 55_000:
            return port


class Node:
    """A server of the cluster."""

    def __init__(self, server: Path, *options: str, login: dict[str, str], tls: bool) -> None:
        #: The port of nodes among themselves and, with TLS, of clients.
        self.tls_port = free_node_port() if tls else 0
        encrypted = ("--tls-port", str(self.tls_port), "--tls-cluster", "yes", "--tls-replication", "yes")
        self.server = EmbeddedRedis(
            *("--cluster-enabled", "yes", "--cluster-node-timeout", str(NODE_TIMEOUT_MS)),
            *("--repl-diskless-sync-delay", "0", "--repl-ping-replica-period", "1"),
            *("--appendfsync", "no", *(encrypted if tls else ()), *options),
            server=server,
            port=free_node_port(),
        )
        self.port = self.server.port
        self.db = redis.Redis(port=self.port, socket_timeout=5, **login)

    @property
    def id(self) -> str:
        """The name of the node in the cluster."""
        return str(self.call("CLUSTER MYID"))

    def call(self, *command: Any) -> Any:
        """Return the reply to a command, as text where it is bytes."""
        reply = self.db.execute_command(*command)
        return reply.decode() if isinstance(reply, bytes) else reply

    def log(self) -> str:
        """Return the end of the server's log."""
        return self.server._log()[-2000:]

    @property
    def folder(self) -> Path:
        """The folder of the server's data."""
        return self.server._folder

    def is_primary(self) -> bool:
        """Return whether the server says that it is a primary."""
        return bool(self.db.info("replication")["role"] == "master")


class RedisCluster:
    """Three primaries and, with `replicas`, a replica of each. A context manager. `options` are of all servers.

    `login` are user and password of the tests' own connections. With `tls`, the options name a certificate.
    """

    def __init__(
        self,
        server: Path,
        *options: str,
        replicas: bool = True,
        login: dict[str, str] | None = None,
        tls: bool = False,
    ) -> None:
        self._stack = contextlib.ExitStack()
        self.nodes = [Node(server, *options, login=login or {}, tls=tls) for _ in range(6 if replicas else 3)]

    @property
    def url(self) -> str:
        """The address of the cluster, with all nodes."""
        return self.url_of(self.nodes)

    @staticmethod
    def url_of(nodes: Sequence[Node]) -> str:
        """Return the address with some of the nodes."""
        return "cluster://" + ",".join(f"127.0.0.1:{node.port}" for node in nodes)

    def owner(self, slot: int = OURS) -> Node:
        """Return the primary of a slot, as most nodes that answer name it."""
        votes: list[int] = []
        for node in self.nodes:
            with contextlib.suppress(redis.RedisError):
                for first, last, primary, *_ in node.db.execute_command("CLUSTER SLOTS"):
                    if first <= slot <= last:
                        votes.append(int(primary[1]))
        port = max(set(votes), key=votes.count)
        return next(node for node in self.nodes if node.port == port)

    def others(self, slot: int = OURS) -> list[Node]:
        """Return the primaries that do not serve a slot."""
        owner = self.owner(slot)
        return [node for node in self.nodes if node is not owner and node.is_primary()]

    def replica(self, slot: int = OURS) -> Node:
        """Return the replica of the primary of a slot."""
        owner = self.owner(slot)
        for node in self.nodes:
            with contextlib.suppress(redis.RedisError):
                info: dict[str, Any] = node.db.info("replication")  # type: ignore[assignment]  # not asyncio
                if info["role"] == "slave" and info["master_port"] == owner.port:
                    return node
        raise AssertionError("the primary has no replica")

    def fail_over(self) -> None:
        """Let the replica of our slot take over, and wait until all nodes know it."""
        replica = self.replica()
        wait_until(lambda: replica.db.info("replication")["master_link_status"] == "up")
        tried_at = 0.0

        def has_taken_over() -> bool:
            nonlocal tried_at
            if self.owner() is replica and replica.is_primary():
                return True
            # The others vote once in two node timeouts; a failover without their votes ends after five seconds.
            if time.monotonic() - tried_at > 6:
                tried_at = time.monotonic()
                replica.call("CLUSTER FAILOVER")
            return False

        wait_until(has_taken_over, 45, replica.log)

    def move_slot(self, target: Node, *, keys: int = 1, pause: float = 0.0) -> None:
        """Move our slot to another primary, `keys` keys at a time, with `pause` seconds between."""
        source = self.owner()
        target.call("CLUSTER SETSLOT", OURS, "IMPORTING", source.id)
        source.call("CLUSTER SETSLOT", OURS, "MIGRATING", target.id)
        while moved := source.db.execute_command("CLUSTER GETKEYSINSLOT", OURS, keys):
            source.call("MIGRATE", "127.0.0.1", target.port, "", 0, 5000, "KEYS", *moved)
            time.sleep(pause)
        for node in (target, source, *self.nodes):
            if node.is_primary():
                node.call("CLUSTER SETSLOT", OURS, "NODE", target.id)
        wait_until(lambda: self.owner() is target)

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            for node in self.nodes:
                stack.enter_context(node.db)
                stack.enter_context(node.server)
            primaries, replicas = self.nodes[:3], self.nodes[3:]
            for node in self.nodes[1:]:
                node.call("CLUSTER MEET", "127.0.0.1", self.nodes[0].tls_port or self.nodes[0].port)
            bounds = [SLOTS * index // 3 for index in range(4)]
            for index, node in enumerate(primaries):
                node.call("CLUSTER ADDSLOTS", *range(bounds[index], bounds[index + 1]))
            wait_until(lambda: all(self._is_complete(node) for node in self.nodes))
            for primary, node in zip(primaries, replicas, strict=False):
                node.call("CLUSTER REPLICATE", primary.id)
            wait_until(lambda: all(self._is_synced(node) for node in replicas))
            # A primary that does not know its replica yet ignores its request to take over.
            wait_until(lambda: all(self._knows_replicas(node) for node in self.nodes))
            self._stack = stack.pop_all()
        return self

    def _is_complete(self, node: Node) -> bool:
        info = node.db.execute_command("CLUSTER INFO")
        return bool(info["cluster_state"] == "ok" and int(info["cluster_known_nodes"]) == len(self.nodes))

    def _knows_replicas(self, node: Node) -> bool:
        slots = node.db.execute_command("CLUSTER SLOTS")
        return sum(len(served_by) for _, _, *served_by in slots) == len(self.nodes)

    @staticmethod
    def _is_synced(node: Node) -> bool:
        return bool(node.db.info("replication").get("master_link_status") == "up")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.close()
