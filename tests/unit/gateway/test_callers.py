"""API keys at the gateway: which callers they name, and when they are read again."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest
from starlette.datastructures import Headers

from headrace.catalog.api_keys import digest_api_key, make_api_key
from headrace.catalog.callers import EVERY, RegisteredCaller, Secret
from headrace.errors import BrokerUnavailable, SettingError
from headrace.submit.options import JobOptions
from headrace_gateway.callers import Caller, KeyCallers, check_open
from headrace_gateway.problems import Problem
from headrace_gateway.settings import GatewaySettings

KEY, OTHER = make_api_key("shop"), make_api_key("shop")


def registered(*keys: str, **limits: Any) -> RegisteredCaller:
    """Return a caller with these keys."""
    secrets = tuple(Secret(digest=digest_api_key(key), created_ms=1) for key in keys)
    return RegisteredCaller(secrets=secrets, **limits)


class Stored:
    """Callers as Redis holds them, the number of times they were read, and an error in place of them."""

    def __init__(self, **callers: RegisteredCaller) -> None:
        self.callers, self.reads, self.error = callers, 0, None

    async def __call__(self) -> dict[str, RegisteredCaller]:
        self.reads += 1
        await asyncio.sleep(0)
        if self.error is not None:
            raise self.error
        return dict(self.callers)


def bearer(key: str, scheme: str = "Bearer") -> Headers:
    return Headers({"authorization": f"{scheme} {key}"})


def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(coroutine)


async def refusal(callers: KeyCallers, headers: Headers) -> Problem:
    """Return the problem of a request that is refused."""
    with pytest.raises(Problem) as raised:
        await callers.authenticate(headers)
    return raised.value


def test_a_key_is_its_caller_with_what_it_may_do():
    callers = KeyCallers(Stored(shop=registered(KEY, OTHER, models=("churn",), waiting=2)), ttl=10)
    for key in (KEY, OTHER):
        caller = run(callers.authenticate(bearer(key)))
        assert (caller.name, caller.models, caller.waiting) == ("shop", frozenset({"churn"}), 2)
    assert run(callers.authenticate(bearer(KEY, "bEARER"))).name == "shop"


HOSTILE = {
    "the key of nobody": bearer(make_api_key("nobody")),
    "another secret of the name": bearer(make_api_key("shop")),
    "the last character missing": bearer(KEY[:-1]),
    "a character more": bearer(KEY + "0"),
    "the case changed": bearer(KEY.swapcase()),
    "the name alone": bearer("hr_shop_"),
    "the digest in place of the secret": bearer(f"hr_shop_{digest_api_key(KEY)[:43]}"),
    "no key": bearer(""),
    "two keys": bearer(f"{KEY},{KEY}"),
    "unicode that a lenient comparison would fold": bearer(
        KEY.replace("hr", "\uff48r")[:90].encode().decode("latin-1")
    ),
    "a null character": bearer(KEY + "\0"),
    "a megabyte": bearer("hr_shop_" + "0" * 1_000_000),
    "a megabyte of blanks": bearer(" " * 1_000_000 + KEY),
    "basic": bearer(KEY, "Basic"),
    "no scheme": Headers({"authorization": KEY}),
    "the scheme alone": Headers({"authorization": "Bearer"}),
    "an empty header": Headers({"authorization": ""}),
    "the key in another header": Headers({"x-api-key": KEY}),
    "no header": Headers({}),
    "two headers": Headers(raw=[(b"authorization", f"Bearer {KEY}".encode())] * 2),
}


@pytest.mark.parametrize("headers", HOSTILE.values(), ids=HOSTILE)
def test_what_is_no_valid_key_is_401_with_a_challenge_and_is_not_repeated(headers: Headers):
    problem = run(refusal(KeyCallers(Stored(shop=registered(KEY)), ttl=10), headers))
    assert (problem.status, problem.kind) == (401, "unauthorized")
    assert problem.headers["WWW-Authenticate"].startswith('Bearer realm="headrace"')
    assert ("error=" in problem.headers["WWW-Authenticate"]) == ("authorization" in headers)
    assert KEY[8:20] not in problem.detail
    assert len(problem.detail) < 200


def test_a_flood_of_unknown_keys_waits_for_one_read_together():
    stored = Stored(shop=registered(KEY))

    async def flood() -> None:
        callers = KeyCallers(stored, ttl=10)
        problems = await asyncio.gather(
            *(refusal(callers, bearer(make_api_key(f"n{number}"))) for number in range(50))
        )
        assert {problem.status for problem in problems} == {401}

    run(flood())
    assert stored.reads == 1


def test_a_key_works_that_was_made_a_moment_after_the_callers_were_read():
    stored = Stored(shop=registered(KEY))

    async def call() -> None:
        callers = KeyCallers(stored, ttl=10)
        await callers.authenticate(bearer(KEY))
        for _ in range(2):
            new = make_api_key("shop")
            stored.callers = {"shop": registered(KEY, new)}
            assert (await callers.authenticate(bearer(new))).name == "shop"

    run(call())
    assert stored.reads == 3


def test_known_keys_ask_redis_nothing_while_they_are_fresh():
    stored = Stored(shop=registered(KEY))

    async def call() -> None:
        callers = KeyCallers(stored, ttl=10)
        for _ in range(100):
            await callers.authenticate(bearer(KEY))

    run(call())
    assert stored.reads == 1


def test_a_revoked_key_ends_within_the_cache_time_and_a_new_one_works():
    stored, ttl = Stored(shop=registered(KEY)), 0.2

    async def call() -> None:
        callers = KeyCallers(stored, ttl)
        await callers.authenticate(bearer(KEY))
        stored.callers = {"shop": registered(OTHER)}
        await asyncio.sleep(ttl + 0.01)
        assert (await refusal(callers, bearer(KEY))).status == 401
        assert (await callers.authenticate(bearer(OTHER))).name == "shop"

    run(call())


def test_a_key_in_use_is_read_again_before_it_is_too_old_and_no_request_waits_for_that():
    stored, ttl = Stored(shop=registered(KEY)), 0.4

    async def call() -> None:
        callers = KeyCallers(stored, ttl)
        await callers.authenticate(bearer(KEY))
        await asyncio.sleep(ttl * 0.6)
        assert stored.reads == 1
        await callers.authenticate(bearer(KEY))
        await asyncio.sleep(0.02)
        assert stored.reads == 2

    run(call())


def test_without_redis_known_keys_go_on_and_others_are_503():
    stored, ttl = Stored(shop=registered(KEY)), 0.05

    async def call() -> None:
        callers = KeyCallers(stored, ttl)
        await callers.authenticate(bearer(KEY))
        stored.error = BrokerUnavailable("Redis is away")
        for _ in range(3):
            await asyncio.sleep(ttl * 1.1)
            assert (await callers.authenticate(bearer(KEY))).name == "shop"
        problem = await refusal(callers, bearer(make_api_key("new")))
        assert (problem.status, problem.kind) == (503, "broker-unavailable")

    run(call())


def test_without_redis_from_the_start_everybody_is_503_and_served_when_it_is_back():
    stored = Stored(shop=registered(KEY))
    stored.error = BrokerUnavailable("Redis is away")

    async def call() -> None:
        callers = KeyCallers(stored, ttl=0.05)
        assert (await refusal(callers, bearer(KEY))).status == 503
        stored.error = None
        assert (await callers.authenticate(bearer(KEY))).name == "shop"

    run(call())


def test_a_redis_that_does_not_answer_holds_no_request_of_a_known_key_for_long(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("headrace_gateway.callers._READ_SECONDS", 0.05)
    silent = asyncio.Event()
    stored = Stored(shop=registered(KEY))

    async def read() -> dict[str, RegisteredCaller]:
        callers = await stored()
        if stored.reads > 1:
            await silent.wait()
        return callers

    async def call() -> None:
        callers = KeyCallers(read, ttl=0.05)
        await callers.authenticate(bearer(KEY))
        await asyncio.sleep(0.06)
        began = asyncio.get_running_loop().time()
        for _ in range(100):
            assert (await callers.authenticate(bearer(KEY))).name == "shop"
        assert stored.reads == 2
        assert asyncio.get_running_loop().time() - began < 1  # one of them waits, not each
        silent.set()

    run(call())


def test_without_any_caller_the_answer_says_how_to_make_a_key():
    problem = run(refusal(KeyCallers(Stored(), ttl=10), bearer(KEY)))
    assert problem.status == 401
    assert "`headrace keys add NAME`" in problem.detail


@pytest.mark.parametrize(
    ("limits", "call", "status", "text"),
    [
        (
            {"scopes": frozenset({"jobs"})},
            lambda c: c.permit("predict", "churn", 1, {}),
            403,
            "may not use predict",
        ),
        ({"scopes": frozenset()}, lambda c: c.permit("bulk", "churn", 1, {}), 403, "may not use bulk"),
        ({"models": frozenset({"churn"})}, lambda c: c.permit("jobs", "prices", 1, {}), 403, "this model"),
        ({"models": frozenset({"churn"})}, lambda c: c.permit("jobs", "prices@churn", 1, {}), 403, "this model"),
        (
            {"max_rows": 2},
            lambda c: c.permit("jobs", "churn", 3, {}),
            422,
            "at most 2 instances, and this one has 3",
        ),
        ({"priority": 5}, lambda c: c.permit("jobs", "churn", 1, {"priority": 4}), 403, "most urgent priority"),
        ({"notify": frozenset()}, lambda c: c.permit("jobs", "churn", 1, {"notify": "shop"}), 403, "endpoint"),
    ],
)
def test_what_a_caller_may_not_is_a_problem_that_says_so(limits: Any, call: Any, status: int, text: str):
    with pytest.raises(Problem) as raised:
        call(Caller(name="shop", **limits))
    assert raised.value.status == status
    assert text in raised.value.detail


def test_a_permitted_job_has_its_owner_and_the_callers_priority():
    caller = Caller(name="shop", models=frozenset({"churn"}), max_rows=2, priority=5, notify=frozenset({"crm"}))
    options = JobOptions(notify="crm", version="3", owner="mallory")
    assert caller.permit("jobs", "churn@7", 2, options) == {
        "notify": "crm",
        "version": "3",
        "owner": "shop",
        "priority": 5,
    }
    assert [caller.permit("jobs", "churn", 2, {"priority": each})["priority"] for each in (0, 5, 9)] == [5, 5, 9]
    assert Caller(notify=frozenset({EVERY})).permit("jobs", "churn", 2, {"notify": "x"})["owner"] is None


@pytest.mark.parametrize("address", ["0.0.0.0", "::", "192.168.0.7", "example.org", ""])
def test_an_open_gateway_that_others_reach_does_not_start_unless_it_is_said_twice(address: str):
    with pytest.raises(SettingError, match="HEADRACE_GATEWAY_OPEN_NETWORK=true"):
        check_open(GatewaySettings(gateway_open=True, gateway_address=address))
    check_open(GatewaySettings(gateway_open=True, gateway_address=address, gateway_open_network=True))
    check_open(GatewaySettings(gateway_address=address))


@pytest.mark.parametrize("address", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_an_open_gateway_may_serve_this_machine(address: str):
    check_open(GatewaySettings(gateway_open=True, gateway_address=address))
