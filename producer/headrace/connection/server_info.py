"""What a Redis tells of itself: its version, its directives, how far away it is.

Whether that is good enough is `headrace.doctor.redis`'s to say; what `submit(durable=True)` can wait for,
`headrace.submit.durability`'s.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from statistics import median
from typing import Any

import msgspec
from redis.exceptions import ResponseError

from headrace.connection.commands import Command, Operation
from headrace.connection.server_time import READ_SERVER_TIME, decode_server_time

#: Directives the promises hang on that INFO does not tell.
DIRECTIVES = (
    "appendfsync",
    "no-appendfsync-on-rewrite",
    "save",
    "stop-writes-on-bgsave-error",
    "min-replicas-to-write",
)

#: Round trips that are measured; the median of them counts.
_TRIPS = 5


class ServerInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What a Redis tells of itself."""

    #: The fields of INFO; empty where the user may not ask.
    info: Mapping[str, Any]
    #: Directives and their values, without those the user may not read.
    config: Mapping[str, str] = {}
    #: Milliseconds a round trip takes.
    latency_ms: float | None = None
    #: Seconds its clock is ahead of ours.
    clock_offset: float | None = None

    @property
    def name(self) -> str:
        """`Redis 7.0.15`, `Valkey 8.0.1`; for messages."""
        if "valkey_version" in self.info:
            return f"Valkey {self.info['valkey_version']}"
        return f"Redis {self.info.get('redis_version', 'of an unknown version')}"

    @property
    def version(self) -> tuple[int, ...]:
        """The version of Redis it is, or is compatible with (every Valkey says 7.2); () where unknown."""
        parts = str(self.info.get("redis_version", "")).split(".")
        return tuple(int(part) for part in parts if part.isdigit())

    @property
    def is_primary(self) -> bool:
        """Whether it takes writes; also where it does not tell."""
        return bool(self.info.get("role", "master") == "master")

    @property
    def has_append_only_file(self) -> bool:
        """Whether it writes an append-only file."""
        return bool(self.get_number("aof_enabled"))

    @property
    def replicas(self) -> int:
        """Replicas that are sent every write as it happens."""
        named = [self.info.get(f"slave{at}") for at in range(self.get_number("connected_slaves"))]
        return sum(isinstance(one, Mapping) and one.get("state") == "online" for one in named)

    def get_number(self, field: str) -> int:
        """A field of INFO as a number; 0 where there is none."""
        value = self.info.get(field, 0)
        return int(value) if str(value).isdigit() else 0


def read_directives(*names: str) -> Operation[dict[str, str]]:
    """Directives and their values, without those the user may not read."""
    config: dict[str, str] = {}
    for name in names:
        # One by one: several in one command are for Redis 7, and one refused would refuse them all.
        told = yield from _permitted(Command(("CONFIG GET", name)), {})
        config |= {_text(name): _text(value) for name, value in told.items()}
    return config


def read_server_info(
    wall: Callable[[], float] = time.time, ticks: Callable[[], float] = time.perf_counter
) -> Operation[ServerInfo]:
    """All that can be told of it, also how far away it is and what its clock says.

    `wall` is our clock in unix seconds, `ticks` one that measures.
    """
    yield Command(("PING",))  # the first also opens the connection
    trips = []
    for _ in range(_TRIPS):
        began = ticks()
        yield Command(("PING",))
        trips.append(ticks() - began)
    before = wall()
    reply = yield from _permitted(READ_SERVER_TIME, None)
    here = (before + wall()) / 2
    info = yield from _permitted(Command(("INFO",)), {})
    return ServerInfo(
        info=info,
        config=(yield from read_directives(*DIRECTIVES)),
        latency_ms=1000 * median(trips),
        clock_offset=None if reply is None else decode_server_time(reply) / 1000 - here,
    )


def read_user() -> Operation[str | None]:
    """Who we are to it; None where it does not tell."""
    told = yield from _permitted(Command(("ACL WHOAMI",)), None)
    return None if told is None else _text(told)


def _permitted(command: Command, otherwise: Any) -> Operation[Any]:
    """The reply, or what stands for it where the command is not permitted, or not there (as a managed CONFIG)."""
    try:
        return (yield command)
    except ResponseError:
        return otherwise


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
