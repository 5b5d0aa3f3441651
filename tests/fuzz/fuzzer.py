"""Run targets on mutated inputs, and collect what breaks their promises."""

from __future__ import annotations

import random
import signal
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import msgspec

from tests.fuzz.mutations import mutate
from tests.fuzz.targets import Target

#: Seconds that one input may take, on a machine under load.
_SECONDS = 30


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """An input that broke a promise."""

    target: str
    #: The number of the input: the same seed and number give it again.
    number: int
    data: bytes
    error: str


class _Hang(BaseException):
    """The input took longer than it may."""


def fuzz(target: Target, count: int, seed: int) -> list[Finding]:
    """Run a target on `count` inputs: the valid ones first, then mutations."""
    findings = []
    for number, data in enumerate(generate(target.inputs, count, f"{seed} {target.name}")):
        try:
            with _time_limit():
                target.run(data)
        except (Exception, _Hang):  # noqa: BLE001  # each is a finding
            findings.append(Finding(target=target.name, number=number, data=data, error=traceback.format_exc()))
    return findings


def generate(inputs: list[bytes], count: int, seed: str) -> Iterator[bytes]:
    """Yield `count` inputs: the valid ones first, then mutations of them."""
    yield from inputs[:count]
    chance = random.Random(seed)  # tests, not secrets
    for _ in range(count - len(inputs)):
        yield mutate(chance.choice(inputs), inputs, chance)


@contextmanager
def _time_limit() -> Iterator[None]:
    def stop(_number: int, _frame: FrameType | None) -> None:
        raise _Hang(f"not done after {_SECONDS} s")

    former = signal.signal(signal.SIGALRM, stop)
    signal.alarm(_SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, former)
