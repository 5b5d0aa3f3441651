"""The clock of the Redis server, by which leases, delayed jobs and dead letters are timed."""

from __future__ import annotations

from typing import Any

from headrace.connection.commands import Command

#: The command that reads the clock; `decode_server_time` reads its reply.
READ_SERVER_TIME = Command(("TIME",))


def decode_server_time(reply: Any) -> int:
    """Return the unix milliseconds in a reply to TIME: seconds and microseconds, as numbers or as bytes."""
    seconds, microseconds = reply
    return int(seconds) * 1000 + int(microseconds) // 1000
