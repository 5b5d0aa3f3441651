"""The state that all routes share."""

from __future__ import annotations

import asyncio
from typing import TypeVar

from starlette.requests import Request

from headrace import AsyncClient
from headrace.catalog.callers import read_callers
from headrace.catalog.published import ContractCache
from headrace.client.aio.session import AsyncSession
from headrace.connection.commands import Operation
from headrace.wire.keys import Keys
from headrace_gateway.callers import Caller, Callers, KeyCallers, OpenCallers
from headrace_gateway.limits import CallerLimits, take_rates
from headrace_gateway.outcome_rate import OutcomeRates
from headrace_gateway.settings import GatewaySettings
from headrace_gateway.waits import Wait, Waits

T = TypeVar("T")


class Gateway:
    """The client, the callers, their limits and the end of one process.

    None for `callers` means those of the settings: everybody, or those with API keys.
    """

    def __init__(self, settings: GatewaySettings, client: AsyncClient, callers: Callers | None = None) -> None:
        self.settings, self.client = settings, client
        self.callers = callers or self._make_callers()
        self.limits = CallerLimits(lambda rates: self.run(take_rates(self.keys, rates)))
        #: Set when the process is told to end: waits answer at once with the id of their job.
        self.is_ending = asyncio.Event()
        #: How fast the jobs of each model end.
        self.rates = OutcomeRates()
        #: The requests that wait for an outcome.
        self.waits = Waits()

    @property
    def session(self) -> AsyncSession:
        """The client's session, for operations that the public client has no method for."""
        return self.client._session  # noqa: SLF001  # the gateway is part of Headrace

    @property
    def keys(self) -> Keys:
        """The names of keys in Redis."""
        return self.session.keys

    @property
    def contracts(self) -> ContractCache:
        """The contracts that the client has read."""
        return self.session.contracts

    async def run(self, operation: Operation[T]) -> T:
        """Run an operation on the client's connections. Raises BrokerUnavailable."""
        return await self.session.run_briefly(operation)

    def wait(self) -> Wait:
        """Return an `async with` that ends with TimeoutError when the process is told to end.

        It ends with ClientDisconnect if the caller of the request hangs up.
        """
        return self.waits.wait(is_ending=self.is_ending.is_set())

    def end(self) -> None:
        """End all waits: the process was told to end."""
        self.is_ending.set()
        self.waits.end()

    def _make_callers(self) -> Callers:
        if self.settings.gateway_open:
            return OpenCallers()
        return KeyCallers(lambda: self.run(read_callers(self.keys)), self.settings.contract_ttl)


def gateway_of(request: Request) -> Gateway:
    """Return what the routes share."""
    gateway: Gateway = request.app.state.gateway
    return gateway


async def authenticate(request: Request) -> Caller:
    """Return the caller of a request, and name it to the log of requests. Raises a Problem.

    The request counts as under way until its answer ends.
    """
    gateway = gateway_of(request)
    caller = await gateway.callers.authenticate(request.headers)
    request.scope["caller"] = caller.name
    gateway.limits.requests.enter(caller)
    return caller
