"""Callers of a gateway with API keys: registered by the command line, as an operator does it."""

from __future__ import annotations

import itertools

import httpx

from tests.support.command import headrace
from tests.support.gateway import RunningGateway

#: Seconds for which the gateways of these tests keep callers.
CALLERS_TTL = 0.5
#: The settings of a gateway that asks for keys.
KEYED = {"HEADRACE_GATEWAY_OPEN": "false", "HEADRACE_CONTRACT_TTL": str(CALLERS_TTL)}
_numbers = itertools.count()


def run_keys(redis_url: str, *arguments: str) -> str:
    """Run `headrace keys` and return the key that it prints."""
    ran = headrace("keys", *arguments, HEADRACE_REDIS_URL=redis_url)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.strip()


def new_key(redis_url: str, *limits: str) -> tuple[str, str]:
    """Register a new caller; return its name and key."""
    name = f"caller-{next(_numbers)}"
    return name, run_keys(redis_url, "add", name, *limits)


def caller_of(gateway: RunningGateway, key: str) -> httpx.Client:
    """Return a client with a key. Close it."""
    return gateway.client(timeout=30, headers={"Authorization": f"Bearer {key}"})
