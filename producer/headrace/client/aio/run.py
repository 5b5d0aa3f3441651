"""A bulk run: its progress, its end, its failures, and the way to cancel or resume it."""

from __future__ import annotations

from collections.abc import Callable

from headrace.bulk import operations
from headrace.bulk.explain import RunExplanation, explain_run
from headrace.bulk.progress import RunFailures
from headrace.bulk.wait import next_poll, run_timeout, stays_away, verify_success
from headrace.client.aio.connections import sleep
from headrace.client.aio.session import AsyncSession
from headrace.client.common import FINAL_LOOKUP_SECONDS, check_timeout
from headrace.clock import Deadline
from headrace.errors import BrokerUnavailable
from headrace.wire.bulk import RunProgress
from headrace.wire.bulk_checks import check_run_name


class AsyncRunHandle:
    """A bulk run: one that this client submitted, or any run by its name (`AsyncClient.bulk_run`).

    The `timeout` of a call is its most seconds; None is the client's, but for `wait`.
    """

    def __init__(self, session: AsyncSession, name: str) -> None:
        #: The name of the run.
        self.name = check_run_name(name)
        self._session = session

    async def status(self, timeout: float | None = None) -> RunProgress:
        """Return what is known of the run: its state, chunks and rows. Raises UnknownRun."""
        return await self._session.run_briefly(operations.read_run(self._session.keys, self.name), timeout)

    async def wait(
        self, timeout: float | None = None, *, on_progress: Callable[[RunProgress], None] | None = None
    ) -> RunProgress:
        """Wait for the end of the run, `timeout` seconds at most; None waits for ever. Return its progress.

        Rows that failed do not fail the run: look at `rows_failed`. `on_progress` is called with the progress a
        few times a second. The wait survives a restart of Redis.

        Raises RunFailed if the run failed, RunCancelled if it was cancelled, UnknownRun, and ResultTimeout;
        BrokerUnavailable if Redis refuses the client, or was unreachable at first or at the end.
        """
        timeout = check_timeout(timeout)
        deadline, polls = Deadline(timeout), 0
        while True:
            seconds = deadline.remaining_or(self._session.settings.command_timeout) + FINAL_LOOKUP_SECONDS
            progress, outage = None, None
            try:
                progress = await self._session.run(operations.read_run(self._session.keys, self.name), seconds)
            except BrokerUnavailable as error:
                if polls == 0 or stays_away(error):
                    raise
                outage = error
            if progress is not None:
                if on_progress is not None:
                    on_progress(progress)
                if operations.is_over(progress):
                    return verify_success(progress)
            remaining = deadline.remaining()
            if remaining == 0.0:
                raise outage or run_timeout(self.name, progress, timeout or 0.0)
            await sleep(min(next_poll(polls), deadline.remaining_or(next_poll(polls))))
            polls += 1

    async def cancel(self, timeout: float | None = None) -> bool:
        """Cancel the run. Return True if it is cancelled, False if it has ended otherwise. Raises UnknownRun.

        Chunks under way end within about a second. Written parts stay, and `resume` continues from them.
        """
        progress = await self._session.run_briefly(operations.cancel_run(self._session.keys, self.name), timeout)
        return progress.state == "cancelled"

    async def resume(self, timeout: float | None = None) -> bool:
        """Continue the run: predict the chunks that are not done. Return False if it is a success already.

        Chunks that wait or run are left alone. Raises UnknownRun.
        """
        session = self._session
        operation = operations.resume_run(session.keys, self.name, session.settings, session.job_keys)
        return (await session.run_briefly(operation, timeout)).state != "success"

    async def failures(self, timeout: float | None = None) -> RunFailures:
        """Return why rows failed, by reason, and which chunks failed as a whole. Raises UnknownRun.

        The rows themselves are in the folder `errors` of the output.
        """
        return await self._session.run(operations.failures_of(self._session.keys, self.name), timeout)

    async def explain(self, timeout: float | None = None) -> RunExplanation:
        """Return what is known of the run, and what it waits for. Raises UnknownRun."""
        return await self._session.run(explain_run(self._session.keys, self.name), timeout)

    def __repr__(self) -> str:
        return f"<AsyncRunHandle {self.name}>"
