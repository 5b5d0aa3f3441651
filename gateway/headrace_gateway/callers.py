"""Callers: their API keys, and what each may do.

A caller sends its API key as `Authorization: Bearer hr_<name>_<secret>`. Gateways read all callers together, so an
unknown key costs Redis nothing, and keep them for `contract_ttl` seconds. While Redis is away, they keep what they
read last.
"""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol

import msgspec
from starlette.datastructures import Headers

from headrace.catalog.api_keys import MAX_KEY_LENGTH, digest_api_key, read_caller_name
from headrace.catalog.callers import EVERY, SCOPES, Rate, RegisteredCaller, Scope
from headrace.errors import HeadraceError, SettingError
from headrace.submit.options import JobOptions
from headrace_gateway.problems import Problem, problem_of
from headrace_gateway.settings import GatewaySettings

log = logging.getLogger("headrace.gateway")

#: Seconds that a request waits for the callers to be read, and the least between two reads.
_READ_SECONDS, _READ_PAUSE = 2.0, 0.25
#: What an unknown caller's key is compared with.
_NO_DIGEST = "0" * 64
_CHALLENGE = 'Bearer realm="headrace"'


class Caller(msgspec.Struct, frozen=True, kw_only=True):
    """A caller, as it was registered. An empty name is the caller of an open gateway."""

    name: str = ""
    #: The models it may use; empty is all.
    models: frozenset[str] = frozenset()
    scopes: frozenset[Scope] = frozenset(SCOPES)
    #: None is no limit.
    rate: Rate | None = None
    #: Most requests under way at once; 0 is no limit.
    waiting: int = 0
    #: Most instances of a job; 0 is no limit besides that of a job.
    max_rows: int = 0
    #: The most urgent priority that it may use.
    priority: int = 0
    #: Names of the endpoints that it may have notified; EVERY is all.
    notify: frozenset[str] = frozenset((EVERY,))

    def check(self, scope: Scope, model: str | None = None) -> None:
        """Raise a Problem unless the caller may do this with this model. `model` may have a version behind it."""
        if scope not in self.scopes:
            raise Problem(403, "forbidden", f"this key may not use {scope}; ask for a key with that scope")
        if model is not None and self.models and model.partition("@")[0] not in self.models:
            raise Problem(403, "forbidden", "this key may not use this model; ask for a key that names it")

    def permit(self, scope: Scope, model: str, rows: int, options: JobOptions) -> JobOptions:
        """Return the options of a job of the caller: its owner, and a priority that it may use. Raises a Problem.

        `rows` is the number of its instances.
        """
        self.check(scope, model)
        self.check_rows(rows)
        if (endpoint := options.get("notify")) is not None:
            self.check_notify(endpoint)
        priority = self.allowed_priority(options.get("priority"))
        return {**options, "priority": priority, "owner": self.name or None}

    def check_rows(self, rows: int) -> None:
        """Raise a Problem if a job of so many instances is too large for the caller."""
        if self.max_rows and rows > self.max_rows:
            detail = f"a job of this key has at most {self.max_rows} instances, and this one has {rows}"
            raise Problem(422, "too-many-rows", detail)

    def check_notify(self, endpoint: str) -> None:
        """Raise a Problem unless the caller may have this endpoint notified."""
        if endpoint not in self.notify and EVERY not in self.notify:
            raise Problem(403, "forbidden", "this key may not notify this endpoint; ask for a key that names it")

    def allowed_priority(self, priority: int | None) -> int:
        """Return the priority of a job. Raises a Problem for one that is more urgent than the caller may use.

        0, the default everywhere, is the most urgent that it may use.
        """
        if not priority:
            return self.priority
        if priority < self.priority:
            detail = f"the most urgent priority of this key is {self.priority}; leave `priority` out to use that"
            raise Problem(403, "forbidden", detail)
        return priority

    def may_see(self, owner: str | None) -> bool:
        """Decide whether a job or a bulk run is the caller's, by its owner; an open gateway sees all."""
        return not self.name or owner == self.name


class Callers(Protocol):
    """A way to tell callers apart."""

    async def authenticate(self, headers: Headers) -> Caller:
        """Return the caller of a request. Raises a Problem: 401 without a key that is known."""


class OpenCallers:
    """No keys: everybody is the same caller."""

    async def authenticate(self, headers: Headers) -> Caller:  # noqa: ARG002  # the protocol's
        """Return the one caller."""
        return _EVERYBODY


_EVERYBODY = Caller()


class _KeyedCaller(msgspec.Struct, frozen=True):
    """A caller with the digests of its keys."""

    caller: Caller
    digests: tuple[str, ...]


class KeyCallers:
    """Callers with API keys.

    `read` reads all of them; it raises HeadraceError. A key that was revoked ends within `ttl` seconds. A new one
    works at once: a request with an unknown key waits for a read that begins after it. All such requests wait for
    the same one, so many of them cost Redis no more than a few.
    """

    def __init__(self, read: Callable[[], Awaitable[Mapping[str, RegisteredCaller]]], ttl: float) -> None:
        self._read, self._ttl = read, ttl
        #: None before the first read.
        self._callers: dict[str, _KeyedCaller] | None = None
        #: When the last read that succeeded began, the last that ended, and the last.
        self._read_at = self._ended_at = self._began_at = float("-inf")
        self._error: HeadraceError | None = None
        #: True while reads fail or take too long: requests with known keys do not wait for them.
        self._is_away = False
        self._reading: asyncio.Task[None] | None = None

    async def authenticate(self, headers: Headers) -> Caller:
        """Return the caller whose key a request bears. Raises a Problem: 401, or 503 if no callers can be read."""
        arrived, key = time.monotonic(), _read_bearer(headers)
        name, digest = read_caller_name(key), digest_api_key(key)
        if name is None:
            raise _unknown_key()
        await self._refresh_if_old()
        caller = self._find(name, digest)
        if caller is None:
            await self._read_since(arrived)
            caller = self._find(name, digest)
        if caller is not None:
            return caller
        if self._error is not None:
            raise problem_of(self._error)
        if self._callers is None or self._ended_at < arrived:
            detail = "Redis has not told in time whether this API key is valid; try again"
            raise Problem(503, "broker-unavailable", detail, headers={"Retry-After": "1"})
        if not self._callers:
            raise _unauthorized(
                "this gateway has no callers yet: an operator makes a key with `headrace keys add NAME`"
            )
        raise _unknown_key()

    def _find(self, name: str, digest: str) -> Caller | None:
        keyed_caller = (self._callers or {}).get(name)
        digests = keyed_caller.digests if keyed_caller is not None else (_NO_DIGEST,)
        # Each is compared whole: the time tells nothing about a digest, nor which of two it was.
        matches = [hmac.compare_digest(digest, stored) for stored in digests]
        return keyed_caller.caller if keyed_caller is not None and any(matches) else None

    async def _refresh_if_old(self) -> None:
        """Read the callers again: at half their age beside the request, when they are too old before it."""
        age = time.monotonic() - self._read_at
        if self._callers is None or (age > self._ttl and not self._is_away):
            done, _ = await asyncio.wait({self._begin_read()}, timeout=_READ_SECONDS)
            self._is_away = self._is_away or not done
        elif age > self._ttl / 2:
            self._begin_read()

    async def _read_since(self, moment: float) -> None:
        """Wait until a read has ended that began at `moment` or later, _READ_SECONDS at most."""
        deadline = moment + _READ_SECONDS
        while self._ended_at < moment and (left := deadline - time.monotonic()) > 0:
            await asyncio.wait({self._begin_read()}, timeout=left)

    def _begin_read(self) -> asyncio.Task[None]:
        """Return the read that is under way, or begin one. It goes on when a request that waits for it ends."""
        if self._reading is None or self._reading.done():
            self._reading = asyncio.create_task(self._read_callers())
        return self._reading

    async def _read_callers(self) -> None:
        await asyncio.sleep(self._began_at + min(_READ_PAUSE, self._ttl / 4) - time.monotonic())
        began = self._began_at = time.monotonic()
        try:
            registered = await self._read()
        except HeadraceError as error:
            if self._error is None:
                log.warning("the API keys cannot be read; those read before stay valid: %s", error)
            self._error, self._is_away = error, True
        else:
            self._callers = {name: _keyed_caller(name, caller) for name, caller in registered.items()}
            self._read_at, self._error, self._is_away = began, None, False
        finally:
            self._ended_at = began


def check_open(settings: GatewaySettings) -> None:
    """Refuse to serve other machines without keys. Raises SettingError."""
    if settings.gateway_open and not settings.gateway_open_network and not _is_loopback(settings.gateway_address):
        raise SettingError(
            "HEADRACE_GATEWAY_OPEN=true lets everybody who reaches HEADRACE_GATEWAY_ADDRESS use every model. Give "
            "callers keys (`headrace keys add NAME`) and leave it out; or serve 127.0.0.1; or, if only machines "
            "that you trust reach the address, set HEADRACE_GATEWAY_OPEN_NETWORK=true too"
        )


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:  # a name
        return address == "localhost"


def _keyed_caller(name: str, caller: RegisteredCaller) -> _KeyedCaller:
    return _KeyedCaller(
        Caller(
            name=name,
            models=frozenset(caller.models),
            scopes=frozenset(caller.scopes),
            rate=caller.rate,
            waiting=caller.waiting,
            max_rows=caller.max_rows,
            priority=caller.priority,
            notify=frozenset(caller.notify),
        ),
        tuple(secret.digest for secret in caller.secrets),
    )


def _read_bearer(headers: Headers) -> str:
    """Return the key that a request bears. Raises a Problem."""
    values = headers.getlist("authorization")
    if not values:
        raise _unauthorized(
            "this needs an API key: send the header `Authorization: Bearer hr_NAME_SECRET`; an operator makes one "
            "with `headrace keys add NAME`",
            error=None,
        )
    if len(values) > 1:
        raise _unauthorized("the request has several Authorization headers; send one", error="invalid_request")
    scheme, _, key = values[0].partition(" ")
    if scheme.lower() != "bearer":
        detail = "the header for the API key has the form `Authorization: Bearer hr_NAME_SECRET`"
        raise _unauthorized(detail, error="invalid_request")
    if len(key) > MAX_KEY_LENGTH:
        raise _unknown_key()
    return key.strip(" ")


def _unknown_key() -> Problem:
    return _unauthorized(
        "this API key is not valid: it was revoked, belongs to another installation, or is not complete; a key is "
        "`hr_`, a name, `_` and 43 letters and digits"
    )


def _unauthorized(detail: str, *, error: str | None = "invalid_token") -> Problem:
    challenge = _CHALLENGE if error is None else f'{_CHALLENGE}, error="{error}"'
    return Problem(401, "unauthorized", detail, headers={"WWW-Authenticate": challenge})
