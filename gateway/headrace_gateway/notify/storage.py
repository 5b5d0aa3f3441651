"""The notices in Redis, for a notifier: claim, read the outcome, record what became of one.

Every command is repeated while Redis is away, for as long as the claim lasts. What could not be recorded until
then is due again: the endpoint may hear of it twice, and never not at all.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from typing import Any

import msgspec
from redis.exceptions import RedisError

from headrace.client.aio.connections import AsyncConnections
from headrace.connection.commands import Command, Operation, Pipeline, run_async
from headrace.connection.errors import is_permanent
from headrace.results.letter_scripts import DeadLetterLimits
from headrace.results.notice_scripts import (
    EndpointError,
    SweepResult,
    bury_command,
    finish_command,
    postpone_command,
    sweep_page,
    take_command,
)
from headrace.wire.dead_letter import DeadLetter
from headrace.wire.keys import Keys
from headrace.wire.notice import Notice
from headrace_gateway.notify.payload import OUTCOME_BYTES
from headrace_gateway.notify.settings import NotifySettings

log = logging.getLogger("headrace.notify")

#: Seconds between two tries of a command that Redis did not answer.
_PAUSE = 0.5


class TakenNotices(msgspec.Struct, frozen=True, kw_only=True):
    """The notices of one claim: id and stored bytes of each."""

    #: Unix milliseconds, the server's clock.
    now_ms: int
    notices: list[tuple[str, bytes]]


class NoticeStore:
    """The notices of one installation. Close it."""

    def __init__(self, settings: NotifySettings) -> None:
        self.keys = Keys(settings.key_prefix)
        self._connections = AsyncConnections(settings, self.keys, uuid.uuid4().hex)
        self._limits = DeadLetterLimits(
            max_count=settings.dead_letters_max, max_age_seconds=settings.dead_letters_ttl
        )
        #: Seconds that a claim lasts: one request, and time to record what became of it.
        self.claim_seconds = 2 * settings.notify_timeout + 10.0

    async def take(self, limit: int) -> TakenNotices:
        """Claim notices that are due, at most `limit`. Raises RedisError."""
        command = take_command(self.keys, limit=limit, claim_ms=int(1000 * self.claim_seconds))
        now_ms, *pairs = await self._connections.execute(command)
        names = [name.decode(errors="replace") for name in pairs[::2]]
        return TakenNotices(now_ms=int(now_ms), notices=list(zip(names, pairs[1::2], strict=True)))

    async def read_outcome(self, job: str) -> bytes | None:
        """Return the outcome of a job, OUTCOME_BYTES of it at most; None if it is gone. Raises RedisError."""
        return (
            await self._connections.execute(Command(("GETRANGE", self.keys.result(job), 0, OUTCOME_BYTES - 1)))
            or None
        )

    async def finish(self, notice: str, stored: bytes) -> bool:
        """End a notice. Return False if it has changed since it was claimed, or Redis stayed away."""
        return await self._record(finish_command(self.keys, notice, stored))

    async def postpone(self, notice: Notice, stored: bytes, *, delay: float, error: EndpointError | None) -> bool:
        """Let a notice be claimed again in `delay` seconds, stored with its attempts. Return as `finish`."""
        command = postpone_command(self.keys, notice, stored, delay_ms=int(1000 * delay), error=error)
        return await self._record(command)

    async def bury(
        self,
        notice: str,
        stored: bytes,
        letter: DeadLetter,
        message: bytes,
        *,
        endpoint: str = "",
        error: EndpointError | None = None,
    ) -> bool:
        """Turn a notice into a dead letter. Return as `finish`."""
        return await self._record(
            bury_command(
                self.keys, notice, stored, letter, message, endpoint=endpoint, error=error, limits=self._limits
            )
        )

    async def sweep(self, start: int) -> SweepResult:
        """Go through a page of the jobs under way, see `sweep_page`. Raises RedisError."""
        operation: Operation[SweepResult] = sweep_page(self.keys, start)
        return await run_async(self._connections.execute, operation)

    async def count(self) -> tuple[int, int]:
        """Return the numbers of notices, and of jobs under way that will have one. Raises RedisError."""
        commands = (("HLEN", self.keys.notices), ("ZCARD", self.keys.notices_open))
        replies = await self._connections.execute(Pipeline(commands))
        for reply in replies:
            if isinstance(reply, Exception):
                raise reply
        return replies[0], replies[1]

    async def _record(self, command: Command) -> bool:
        deadline = asyncio.get_running_loop().time() + self.claim_seconds / 2
        while True:
            try:
                reply: Any = await self._connections.execute(command)
            except RedisError as error:
                if is_permanent(error) or asyncio.get_running_loop().time() > deadline:
                    log.error(  # noqa: TRY400  # the error of Redis says it all
                        "Redis did not store what became of a notice (%s); it will be delivered again", error
                    )
                    return False
                await asyncio.sleep(_PAUSE)
            else:
                return bool(reply)

    async def close(self) -> None:
        """Close the connections."""
        await self._connections.close()
