"""The thread of the main process that follows which models are paused.

It is a thread of its own, as the one that follows the store may load versions for minutes.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from functools import partial

import redis

from headrace.catalog.pauses import Pause, read_pauses
from headrace.connection.commands import execute, run
from headrace.wire.keys import Keys
from headrace_worker.models.changes import ChangeReader, Changes
from headrace_worker.telemetry.loops import LoopHealth

log = logging.getLogger("headrace.worker")

#: Seconds between two looks at the count of changes, in memory. Redis is asked when it has changed.
_LOOK_SECONDS = 0.2
#: Seconds after which a round is late. It is one command.
LATE_SECONDS = 60.0


class PauseFollower:
    """The paused models of one installation, as last read. `connect` returns the Redis connection.

    While Redis does not answer, the pauses that were last read hold.
    """

    def __init__(self, connect: Callable[[], redis.Redis], keys: Keys, loop: LoopHealth, changes: Changes) -> None:
        self._connect, self._keys, self._loop = connect, keys, loop
        self._changes = ChangeReader(changes)
        self._pauses: dict[str, Pause] = {}
        self._stop = threading.Event()

    def is_paused(self, model: str) -> bool:
        """Return whether no job of the model may be claimed."""
        return model in self._pauses

    def start(self) -> None:
        """Read the pauses before the first claim, and follow them from now on."""
        try:
            self._read()
        except redis.RedisError as error:
            log.warning("cannot read the paused models; the next attempt is in %g s: %s", _LOOK_SECONDS, error)
        threading.Thread(
            target=self._loop.run_rounds,
            args=(self._read, self._stop, _LOOK_SECONDS),
            name="headrace-pauses",
            daemon=True,
        ).start()

    def stop(self) -> None:
        """Stop following."""
        self._stop.set()

    def _read(self) -> None:
        if not self._changes.must_read():
            return
        former, pauses = self._pauses, run(partial(execute, self._connect()), read_pauses(self._keys))
        self._changes.record_read()
        self._pauses = pauses
        for model, pause in pauses.items():
            if former.get(model) != pause:
                log.warning("%s is %s. Claiming none of its jobs until it is resumed", model, pause)
        for model in former.keys() - pauses.keys():
            log.warning("%s is resumed. Claiming its jobs", model)
