"""A listener: yields the jobs that have ended under a name, each at least once."""

from __future__ import annotations

import logging
import socket
import threading
import time
from types import TracebackType
from typing import Any, Self, TypeVar

from redis import exceptions

from headrace.client.aio.connections import sleep
from headrace.client.aio.session import AsyncSession
from headrace.client.listen_state import ListenState
from headrace.connection.commands import PipelinedOperation
from headrace.connection.errors import is_transient
from headrace.errors import BrokerUnavailable
from headrace.results.listening import (
    FinishedJob,
    claim_entries,
    fail_entry,
    finish_entry,
    release_entries,
    sweep_entries,
)

log = logging.getLogger("headrace.listen")

T = TypeVar("T")

#: Seconds after which a listener that waits notices that it is to stop.
_TICK_SECONDS = 0.25
#: Seconds between two tries while Redis is away.
_PAUSE_SECONDS = 1.0
#: Most messages that are read before a look.
_MESSAGES_PER_LOOK = 10_000


class AsyncListener:
    """The ended jobs of one name, as an iterator that waits for the next one. `AsyncClient.listen` makes it.

    To ask for the next job is to have handled the one before. In a `with` block, an error that leaves the block
    lets the job in hand be delivered again later; without one, the end of the block says that it was handled. A
    job in hand of a listener that ends in any other way is delivered again when its lease ends.

    It goes on while Redis is away. Raises BrokerUnavailable if Redis refuses the user.
    """

    def __init__(self, session: AsyncSession, state: ListenState) -> None:
        self._session, self._state = session, state
        self._stopping = threading.Event()
        self._subscriber: Any = None
        self._is_away, self._may_subscribe = False, True

    @property
    def name(self) -> str:
        """The name under which the jobs were submitted."""
        return self._state.name

    def stop(self) -> None:
        """End the iteration when the job in hand has been handled. Safe for threads and signal handlers."""
        self._stopping.set()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> FinishedJob:
        await self._finish()
        self._state.start(time.monotonic())
        while not self._stopping.is_set():
            if (job := self._state.next_job(time.monotonic())) is not None:
                entry = self._state.in_hand
                if entry is not None and entry.deliveries > self._state.max_deliveries:
                    await self.fail("ListenerLost")  # the last one left nobody to count it
                    continue
                return job
            await self._release()
            next_due = await self._claim()
            if next_due != 0 and not await self._wait(next_due):
                break
        await self.close()
        raise StopAsyncIteration

    async def fail(self, error: str) -> None:
        """Let the job in hand be delivered again later. After its last delivery it becomes a dead letter.

        `error` is the name of the exception.
        """
        entry, self._state.in_hand = self._state.in_hand, None
        if entry is None:
            return
        operation = fail_entry(
            self._session.keys,
            entry,
            error=error,
            host=socket.gethostname(),
            max_deliveries=self._state.max_deliveries,
        )
        if await self._try(operation):
            log.error(
                "the end of job %s was not handled (%s) and is a dead letter; see `headrace dead show %s.listen`",
                entry.job,
                error,
                entry.job,
            )

    async def close(self) -> None:
        """Let other listeners have what this one has claimed and not handed out, and close its connection."""
        self._stopping.set()
        await self._release()
        await self._unsubscribe()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is None:
            await self._finish()
        else:
            await self.fail(kind.__name__)
        await self.close()

    async def _finish(self) -> None:
        """End the entry of the job in hand. It is tried until its claim ends, or once by a listener that stops."""
        entry, self._state.in_hand = self._state.in_hand, None
        while entry is not None:
            is_finished = await self._try(finish_entry(self._session.keys, entry))
            if is_finished is False:
                log.warning("job %s was handled after the end of its lease, and is delivered again", entry.job)
            if is_finished is not None or self._stopping.is_set() or self._state.has_expired(time.monotonic()):
                return
            await self._pause()

    async def _release(self) -> None:
        if stale := self._state.take_stale():
            await self._try(release_entries(self._session.keys, stale))

    async def _claim(self) -> float | None:
        """Claim ended jobs. Return the seconds until it is worth another look; None: a message will wake it."""
        await self._subscribe()
        now, state = time.monotonic(), self._state
        if (start := state.next_sweep(now)) is not None:
            page = await self._try(sweep_entries(self._session.keys, start))
            state.on_swept(None if page is None else page[0], now)
        operation = claim_entries(self._session.keys, state.name, limit=state.claim_size, lease=state.lease)
        claimed = await self._try(operation)
        if claimed is None:
            await self._pause()
            return 0
        state.on_claimed(claimed.jobs, now)
        return 0 if claimed.jobs or claimed.dropped else claimed.next_due

    async def _wait(self, next_due: float | None) -> bool:
        """Wait for a message, or until an entry is due. Return False if the listener has been idle too long."""
        seconds = self._state.wait_seconds(next_due, time.monotonic())
        if seconds is None:
            return False
        end = time.monotonic() + seconds
        while not self._stopping.is_set() and (remaining := end - time.monotonic()) > 0:
            tick = min(_TICK_SECONDS, remaining)
            if self._subscriber is None:
                await sleep(tick)
                continue
            try:
                if await self._subscriber.get_message(timeout=tick) is not None:
                    await self._drain()
                    break
            except (exceptions.RedisError, OSError):
                await self._unsubscribe()
                break  # what was announced meanwhile is found by a look
        return True

    async def _drain(self) -> None:
        """Read the messages that have arrived: one look is enough for all of them."""
        for _ in range(_MESSAGES_PER_LOOK):
            if await self._subscriber.get_message(timeout=0) is None:
                return

    async def _subscribe(self) -> None:
        """Subscribe to the announcements of the name, unless Redis does not permit it."""
        if self._subscriber is not None or not self._may_subscribe:
            return
        try:
            self._subscriber = await self._session.connections.subscribe(
                self._session.keys.listen_channel(self.name)
            )
        except exceptions.NoPermissionError as error:
            self._may_subscribe = False
            log.warning("Redis does not announce ended jobs to this user (%s); they are looked for", error)
        except (exceptions.RedisError, OSError):  # the claim notices whether Redis is away
            return

    async def _unsubscribe(self) -> None:
        subscriber, self._subscriber = self._subscriber, None
        if subscriber is not None:
            await subscriber.aclose()

    async def _try(self, operation: PipelinedOperation[T]) -> T | None:
        """Run an operation. Return None while Redis is away. Raises BrokerUnavailable if that will not end."""
        try:
            result = await self._session.run(operation)
        except BrokerUnavailable as error:
            cause = error.__cause__
            if not (isinstance(cause, exceptions.RedisError) and is_transient(cause)):
                raise
            if not self._is_away:
                log.warning("the listener of %s waits for Redis: %s", self.name, error)
            self._is_away = True
            return None
        self._is_away = False
        return result

    async def _pause(self) -> None:
        end = time.monotonic() + _PAUSE_SECONDS
        while not self._stopping.is_set() and (remaining := end - time.monotonic()) > 0:
            await sleep(min(_TICK_SECONDS, remaining))
