"""Facts about a Redis server: its version, configuration, replicas, latency and clock.

`headrace.doctor.redis` judges them. `headrace.submit.durability` derives from them what `submit(durable=True)` can
wait for.
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

#: Directives that Headrace's guarantees depend on and that INFO does not show.
DIRECTIVES = (
    "appendfsync",
    "no-appendfsync-on-rewrite",
    "save",
    "stop-writes-on-bgsave-error",
    "min-replicas-to-write",
)

#: Number of round trips that are measured for the latency, which is their median.
_ROUND_TRIPS = 5


class ServerInfo(msgspec.Struct, frozen=True, kw_only=True):
    """Facts about a Redis server."""

    #: The fields of INFO; empty if the user may not run it.
    info: Mapping[str, Any]
    #: Directives and their values, without those the user may not read.
    config: Mapping[str, str] = {}
    #: Milliseconds of a round trip.
    latency_ms: float | None = None
    #: Seconds by which the server's clock is ahead of this machine's.
    clock_offset: float | None = None

    @property
    def name(self) -> str:
        """Product and version for messages: `Redis 7.0.15`, `Valkey 8.0.1`."""
        if "valkey_version" in self.info:
            return f"Valkey {self.info['valkey_version']}"
        return f"Redis {self.info.get('redis_version', 'of an unknown version')}"

    @property
    def version(self) -> tuple[int, ...]:
        """The version of Redis, or the one it is compatible with (7.2 for every Valkey); () if unknown."""
        numbers = str(self.info.get("redis_version", "")).split(".")
        return tuple(int(number) for number in numbers if number.isdigit())

    @property
    def is_primary(self) -> bool:
        """True if the server takes writes, or does not tell."""
        return bool(self.info.get("role", "master") == "master")

    @property
    def has_append_only_file(self) -> bool:
        """True if the server writes an append-only file."""
        return bool(self.get_number("aof_enabled"))

    @property
    def replicas(self) -> int:
        """The number of replicas that receive every write as it happens."""
        replicas = [self.info.get(f"slave{index}") for index in range(self.get_number("connected_slaves"))]
        return sum(isinstance(replica, Mapping) and replica.get("state") == "online" for replica in replicas)

    def get_number(self, field: str) -> int:
        """Return a field of INFO as a number; 0 if it is missing."""
        value = self.info.get(field, 0)
        return int(value) if str(value).isdigit() else 0


def read_directives(*names: str) -> Operation[dict[str, str]]:
    """Read directives and their values, without those the user may not read."""
    config: dict[str, str] = {}
    for name in names:
        # A command each: only Redis 7 takes several, and one refused directive would refuse them all.
        values = yield from _read_if_permitted(Command(("CONFIG GET", name)), {})
        config |= {_to_text(name): _to_text(value) for name, value in values.items()}
    return config


def read_server_info(
    wall_clock: Callable[[], float] = time.time, stopwatch: Callable[[], float] = time.perf_counter
) -> Operation[ServerInfo]:
    """Read all facts about the server.

    `wall_clock` returns this machine's unix time in seconds; `stopwatch` returns seconds for measuring durations.
    """
    yield Command(("PING",))  # the first command also opens the connection
    round_trips = []
    for _ in range(_ROUND_TRIPS):
        started = stopwatch()
        yield Command(("PING",))
        round_trips.append(stopwatch() - started)
    before = wall_clock()
    server_time = yield from _read_if_permitted(READ_SERVER_TIME, None)
    local_time = (before + wall_clock()) / 2
    info = yield from _read_if_permitted(Command(("INFO",)), {})
    return ServerInfo(
        info=info,
        config=(yield from read_directives(*DIRECTIVES)),
        latency_ms=1000 * median(round_trips),
        clock_offset=None if server_time is None else decode_server_time(server_time) / 1000 - local_time,
    )


def read_user() -> Operation[str | None]:
    """Read the name of the user that the connection has; None if the server does not tell."""
    user = yield from _read_if_permitted(Command(("ACL WHOAMI",)), None)
    return None if user is None else _to_text(user)


def _read_if_permitted(command: Command, otherwise: Any) -> Operation[Any]:
    """Return the reply, or `otherwise` if the command is not permitted or missing, as on a managed Redis."""
    try:
        return (yield command)
    except ResponseError:
        return otherwise


def _to_text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
