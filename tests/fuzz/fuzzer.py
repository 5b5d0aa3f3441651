"""Run targets on mutated inputs, and collect what breaks their promises.

The inputs run in a child process, which an input may end or block: then that is a finding, and another child goes
on behind it.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import random
import time
import traceback
from collections.abc import Iterator
from itertools import islice
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from multiprocessing.sharedctypes import Synchronized
from typing import Any

import msgspec

from tests.fuzz.confinement import confine
from tests.fuzz.target import Target

#: Seconds that one input may take, on a machine under load.
_SECONDS = 30

_CONTEXT = multiprocessing.get_context("fork")


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """An input that broke a promise."""

    target: str
    #: The number of the input: the same seed and number give it again.
    number: int
    data: bytes
    error: str


def fuzz(target: Target, count: int, seed: int, seconds: float = _SECONDS) -> list[Finding]:
    """Run a target on `count` inputs: the valid ones first, then mutations. Each may take so many seconds."""
    findings: list[Finding] = []
    first = 0
    while first < count:
        with _Child(target, count, seed, first) as child:
            for number, error in child.follow(seconds):
                findings.append(Finding(target=target.name, number=number, data=child.input(number), error=error))
            first = count if child.is_done else child.number + 1
    return findings


def run_input(target: Target, data: bytes) -> str:
    """Run a target on one input, and return the error; empty if there was none."""
    alone = msgspec.structs.replace(target, inputs=[data])
    return next((finding.error for finding in fuzz(alone, 1, 0)), "")


def generate(target: Target, count: int, seed: str) -> Iterator[bytes]:
    """Yield `count` inputs: the valid ones first, then mutations of them."""
    inputs = target.inputs
    yield from inputs[:count]
    chance = random.Random(seed)  # tests, not secrets
    for _ in range(count - len(inputs)):
        yield target.mutate(chance.choice(inputs), inputs, chance)


class _Child:
    """A child process that runs a target on the inputs from a number on."""

    def __init__(self, target: Target, count: int, seed: int, first: int) -> None:
        self._target, self._count, self._seed, self._first = target, count, seed, first
        self.is_done = False
        #: The number of the input that runs.
        self._number: Synchronized[int] = _CONTEXT.Value("q", first)
        self._reader, self._writer = _CONTEXT.Pipe(duplex=False)
        self._process: BaseProcess = _CONTEXT.Process(target=self._run)

    def __enter__(self) -> _Child:
        self._process.start()
        self._writer.close()
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.is_alive() and not self.is_done:
            self._process.kill()
        self._process.join()
        self._process.close()
        self._reader.close()

    @property
    def number(self) -> int:
        return int(self._number.value)

    def input(self, number: int) -> bytes:
        return next(islice(self._inputs(), number, None))

    def follow(self, seconds: float) -> Iterator[tuple[int, str]]:
        """Yield the number and error of each finding, until the child is done, has ended or is stuck."""
        last, since = -1, time.monotonic()
        while True:
            while self._reader.poll(0.05):
                message = _receive(self._reader)
                if message is None:
                    self._process.join()
                    yield self.number, f"the process ended with exit code {self._process.exitcode}"
                    return
                number, error = message
                if error is None:
                    self.is_done = True
                    return
                yield number, error
            if self.number != last:
                last, since = self.number, time.monotonic()
            elif time.monotonic() - since > seconds:
                yield self.number, f"not done after {seconds:g} s"
                return

    def _inputs(self) -> Iterator[bytes]:
        return generate(self._target, self._count, f"{self._seed} {self._target.name}")

    def _run(self) -> None:
        if self._target.confined:
            confine()
        for number, data in enumerate(self._inputs()):
            if number < self._first:
                continue
            self._number.value = number
            try:
                self._target.run(data)
            except Exception:  # noqa: BLE001  # each is a finding
                self._writer.send((number, traceback.format_exc()))
        self._writer.send((self._count, None))


def _receive(reader: Connection) -> Any:
    with contextlib.suppress(EOFError):
        return reader.recv()
    return None
