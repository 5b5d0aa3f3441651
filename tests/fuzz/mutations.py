"""Mutate bytes and JSON. The same generator gives the same mutations, so that a seed repeats each finding."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable
from typing import Any

#: Values of every JSON type, and the ones that decoders handle apart.
_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 9, 2**31, 2**63, 2**70, 10**400, 1e308, 0.1),
    *("", "a", "\x00", "\x1b[31m", "\u202e", "x" * 300, "churn", "1", "2030-01-01T00:00:00Z", "\ud800"),
    *([], {}, [[]], [None], {"a": 1}, {"__type__": "datetime", "__value__": "x"}, [[1, 2, 3]] * 50),
)
_BYTES = (*(bytes([number]) for number in b'\x00\x01\xff\xc3"\\{}[],\n\r'), b"NaN", b"1e999")


def mutate(data: bytes, others: list[bytes], chance: random.Random) -> bytes:
    """Return a mutation of the data: of its JSON where it is JSON, or of its bytes. `others` are spliced in."""
    if chance.random() < 0.5 and (changed := _mutate_json(data, chance)) is not None:
        data = changed
        if chance.random() < 0.7:
            return data
    for _ in range(chance.choice((1, 1, 1, 2, 5))):
        data = chance.choice(_MUTATIONS)(data, others, chance)
    return data


def _mutate_json(data: bytes, chance: random.Random) -> bytes | None:
    """Replace, remove, rename or repeat values at random paths. Return None for bytes that are no JSON."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return None
    holder = [value]
    for _ in range(chance.choice((1, 1, 2, 4))):
        parent, key = chance.choice(_places(holder))
        change = chance.random()
        if change < 0.6:
            parent[key] = copy.deepcopy(chance.choice(_VALUES))
        elif change < 0.75 and isinstance(parent, dict):
            del parent[key]
        elif change < 0.9 and isinstance(parent, dict):
            parent[chance.choice(("id", "task", "body", "x", str(key) + "\x00"))] = parent.pop(key)
        else:
            for _ in range(chance.choice((1, 50, 2_000))):
                parent[key] = [parent[key]]
    try:
        return json.dumps(holder[0]).encode(errors="surrogatepass")
    except (ValueError, RecursionError):
        return b"[" * 3_000


def _places(value: Any) -> list[tuple[Any, Any]]:
    """Return each container with each of its keys. A loop, as the value may be deep."""
    places, containers = [], [value]
    while containers:
        container = containers.pop()
        for key in list(container) if isinstance(container, dict) else range(len(container)):
            places.append((container, key))
            if isinstance(container[key], dict | list) and container[key]:
                containers.append(container[key])
    return places


def _flip(data: bytes, _: list[bytes], chance: random.Random) -> bytes:
    if not data:
        return b"\xff"
    position = chance.randrange(len(data))
    return data[:position] + bytes([data[position] ^ 1 << chance.randrange(8)]) + data[position + 1 :]


def _cut(data: bytes, _: list[bytes], chance: random.Random) -> bytes:
    start, end = sorted(chance.randrange(len(data) + 1) for _ in range(2))
    return data[:start] if chance.random() < 0.5 else data[:start] + data[end:]


def _insert(data: bytes, _: list[bytes], chance: random.Random) -> bytes:
    position = chance.randrange(len(data) + 1)
    return data[:position] + chance.choice(_BYTES) * chance.choice((1, 1, 3, 5_000)) + data[position:]


def _repeat(data: bytes, _: list[bytes], chance: random.Random) -> bytes:
    start, end = sorted(chance.randrange(len(data) + 1) for _ in range(2))
    return data[:start] + data[start:end] * chance.choice((2, 10)) + data[end:]


def _splice(data: bytes, others: list[bytes], chance: random.Random) -> bytes:
    other = chance.choice(others)
    return data[: chance.randrange(len(data) + 1)] + other[chance.randrange(len(other) + 1) :]


_MUTATIONS: tuple[Callable[[bytes, list[bytes], random.Random], bytes], ...] = (
    _flip,
    _cut,
    _insert,
    _repeat,
    _splice,
)
