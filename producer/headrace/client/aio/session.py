"""The state that an asyncio client shares with its job handles and dead letters."""

from __future__ import annotations

import uuid
from functools import partial
from typing import TypeVar

from headrace.catalog.published import ContractCache
from headrace.client.aio.connections import AsyncConnections
from headrace.client.common import FINAL_LOOKUP_SECONDS, check_timeout, job_timeout
from headrace.clock import Deadline
from headrace.connection.call_limit import limit_call
from headrace.connection.commands import PipelinedOperation, run_async
from headrace.connection.errors import translate_errors
from headrace.inspection.job import JobInspector
from headrace.inspection.lost import find_lost_if_permitted
from headrace.results.aio_listener import AsyncOutcomeListener
from headrace.settings import Settings
from headrace.submit.submitter import Submitter
from headrace.wire.keys import Keys
from headrace.wire.outcome import Outcome
from headrace.wire.signing import JobKeys

T = TypeVar("T")


class AsyncSession:
    """The connections of one client, the contracts it has read, and the operations it runs."""

    def __init__(self, settings: Settings, *, check: bool) -> None:
        reply_channel = uuid.uuid4().hex
        self.settings = settings
        #: False if jobs are enqueued without a look at contracts.
        self.checks = check
        self.keys = Keys(settings.key_prefix)
        self.job_keys = JobKeys.parse(settings.job_keys)
        self.contracts = ContractCache(self.keys, settings.contract_ttl)
        self.submitter = Submitter(
            settings,
            self.keys,
            self.contracts,
            self.job_keys,
            reply_channel=reply_channel,
            find_lost=partial(find_lost_if_permitted, self.keys),
            check=check,
        )
        self.inspector = JobInspector(self.keys)
        self.connections = AsyncConnections(settings, self.keys, reply_channel)

    @property
    def listener(self) -> AsyncOutcomeListener:
        """The listener that waits for the outcomes of jobs."""
        return self.connections.listener

    async def run(self, operation: PipelinedOperation[T], timeout: float | None = None) -> T:
        """Run an operation and return its result, after `timeout` seconds at most. Raises BrokerUnavailable.

        Each command takes `Settings.command_timeout` seconds at most, its repetitions included. With None for
        `timeout`, nothing else limits the operation.
        """
        seconds = check_timeout(timeout)
        with translate_errors(self.settings), limit_call(seconds):
            return await run_async(self.connections.execute, operation)

    async def run_briefly(self, operation: PipelinedOperation[T], timeout: float | None = None) -> T:
        """Run an operation that takes `timeout` seconds at most, with all its commands.

        None is `Settings.command_timeout`.
        """
        return await self.run(operation, self.settings.command_timeout if timeout is None else timeout)

    async def outcome(self, job: str, deadline: Deadline) -> Outcome:
        """Wait for the outcome of a job until the deadline, and for the reply to a last look FINAL_LOOKUP_SECONDS.

        Raises ResultTimeout, or BrokerUnavailable if Redis was unreachable when the time was up.
        """
        async with self.listener.subscribe([job]) as subscription:
            arrived = await subscription.next(deadline.remaining())
            if arrived is not None:
                return arrived[1]
            if self.listener.error is not None:
                raise self.listener.error
            state = await self.run(self.inspector.read_state(job), FINAL_LOOKUP_SECONDS)
            if state.outcome is None:
                raise job_timeout(state, deadline.timeout or 0.0)
            return state.outcome

    async def close(self) -> None:
        """Close the connections. Waits that go on elsewhere end with a HeadraceError."""
        await self.connections.close()
