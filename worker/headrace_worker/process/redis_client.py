"""The Redis client of a process: the main process and each pool process need connections of their own."""

from __future__ import annotations

import os

import msgspec
import redis

from headrace.connection.connect import connect
from headrace_worker.settings import WorkerSettings
from headrace_worker.transport import silence_timeout


class ProcessClient:
    """Returns the Redis client of the process that calls it; a fork gets a new one."""

    def __init__(self, settings: WorkerSettings) -> None:
        # A worker must notice a silent Redis before its leases expire.
        timeout = min(settings.command_timeout, silence_timeout(settings.lease))
        self._settings = msgspec.structs.replace(settings, command_timeout=timeout)
        self._client: redis.Redis | None = None
        self._pid = 0

    def __call__(self) -> redis.Redis:
        """Return the client, which connects when it is first used."""
        if self._client is None or self._pid != os.getpid():
            self._client, self._pid = connect(self._settings), os.getpid()
        return self._client
