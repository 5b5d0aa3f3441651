"""A short fuzz in `make test`; `make fuzz` runs the same targets in full."""

from __future__ import annotations

import os
import random
import signal
import socket
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest
import redis

from headrace.wire.keys import Keys
from headrace.wire.queues import FIRST_SOURCE
from headrace_worker.execution.opening import open_claim
from headrace_worker.manifest import Limits
from headrace_worker.transport.claims import Claim, Lease
from tests.fuzz import corpus
from tests.fuzz.claims import served_targets
from tests.fuzz.fuzzer import fuzz
from tests.fuzz.kept import CORPUS, keep, read_kept
from tests.fuzz.mutations import mutate
from tests.fuzz.target import Target
from tests.fuzz.targets import all_targets
from tests.support.foreign_clients import QUEUE
from tests.support.served_worker import Site, server, shared, store
from tests.support.waiting import wait_until

__all__ = ["server", "shared", "store"]

#: The part of a full run, and the mutated messages that a worker receives.
_SCALE, _MESSAGES = 0.01, 300
#: Inputs of a target whose valid ones take long.
_MIN_INPUTS = 10
_SEED = 1
KEYS = Keys()


@pytest.fixture
def worker_site(shared: Site, server: redis.Redis) -> Iterator[Site]:
    server.delete(KEYS.dead, KEYS.dead_messages, KEYS.dead_times)
    yield shared
    server.delete(KEYS.dead, KEYS.dead_messages, KEYS.dead_times)


@pytest.mark.parametrize("target", all_targets(), ids=lambda target: target.name)
def test_what_others_wrote_is_read_or_refused(target: Target) -> None:
    assert _fuzz_kept_and_mutated(target) == []


@pytest.fixture(scope="module")
def redis_targets(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Target]]:
    with served_targets(tmp_path_factory.mktemp("served")) as targets:
        yield targets


@pytest.mark.parametrize("name", ["a claimed message", "a claimed retry", "a request", "a command line"])
def test_what_is_claimed_asked_or_typed_ends_as_promised(redis_targets: list[Target], name: str) -> None:
    (target,) = [target for target in redis_targets if target.name == name]
    assert _fuzz_kept_and_mutated(target) == []


def _fuzz_kept_and_mutated(target: Target) -> list[str]:
    """Run the valid inputs, the kept corpus, and a few mutations. Return the errors."""
    extended = msgspec.structs.replace(target, inputs=[*target.inputs, *read_kept(target)])
    findings = fuzz(extended, len(extended.inputs) + max(_MIN_INPUTS, round(target.count * _SCALE)), _SEED)
    return [f"{finding.data!r}: {finding.error}" for finding in findings]


def test_the_kept_corpus_is_small_and_each_folder_belongs_to_a_target(redis_targets: list[Target]) -> None:
    slugs = {target.slug for target in (*all_targets(), *redis_targets)}
    files = [path for path in CORPUS.rglob("*") if path.is_file()]
    assert {path.parent.name for path in files} <= slugs
    assert sum(path.stat().st_size for path in files) < 300 * 1024


def test_a_kept_input_is_run_again_and_a_full_corpus_takes_no_more(tmp_path: Path) -> None:
    target = Target(name="a thing", inputs=[b"valid"], run=len, count=1)  # type: ignore[arg-type]
    assert keep(target, [b"b", b"a", b"valid", b"x" * 10_000], tmp_path) == 2
    assert sorted(read_kept(target, tmp_path)) == [b"a", b"b"]
    assert keep(target, [b"b"], tmp_path) == 0


def test_a_confined_process_writes_nothing_outside_and_starts_nothing(tmp_path: Path) -> None:
    def misbehave(data: bytes) -> None:
        match data:
            case b"inside":
                (tmp_path / "inside").write_bytes(b"")
            case b"outside":
                Path(__file__).with_name("outside").write_bytes(b"")
            case b"program":
                os.system("true")
            case b"network":
                socket.create_connection(("192.0.2.1", 9), timeout=1)

    inputs = [b"inside", b"outside", b"program", b"network"]
    target = Target(name="bad", inputs=inputs, run=misbehave, count=4, confined=True)
    assert [finding.data for finding in fuzz(target, 4, _SEED)] == inputs[1:]
    assert (tmp_path / "inside").exists()


def test_the_same_seed_gives_the_same_inputs() -> None:
    inputs = corpus.messages()
    first, second = (
        [mutate(inputs[0], inputs, chance) for _ in range(50)] for chance in (random.Random(7), random.Random(7))
    )
    assert first == second
    assert len(set(first)) > 25


def test_a_target_that_breaks_its_promise_is_found() -> None:
    def refuse_zeros(data: bytes) -> None:
        if b"\0" in data:
            raise KeyError("a zero")

    target = Target(name="zeros", inputs=[b'{"a": "b"}'], run=refuse_zeros, count=1)
    findings = fuzz(target, 500, _SEED)
    assert findings
    assert all(b"\0" in finding.data for finding in findings)
    assert "KeyError: 'a zero'" in findings[0].error


def test_an_input_that_ends_or_blocks_its_process_is_found_and_the_others_run() -> None:
    def misbehave(data: bytes) -> None:
        match data:
            case b"kill":
                os.kill(os.getpid(), signal.SIGKILL)
            case b"block":
                signal.pause()
            case b"raise":
                raise KeyError

    inputs = [b"kill", b"fine", b"block", b"fine", b"raise"]
    findings = fuzz(Target(name="bad", inputs=inputs, run=misbehave, count=5), 5, _SEED, seconds=1)
    assert [finding.data for finding in findings] == [b"kill", b"block", b"raise"]
    assert findings[0].error == "the process ended with exit code -9"
    assert findings[1].error == "not done after 1 s"


def test_every_mutated_message_has_an_outcome_or_is_a_dead_letter(worker_site: Site, server: redis.Redis) -> None:
    chance, inputs = random.Random(_SEED), corpus.messages()
    messages = {mutate(chance.choice(inputs), inputs, chance) for _ in range(_MESSAGES)}
    ids, nameless = _sort(messages)
    for message in messages:
        server.lpush(QUEUE, message)
    wait_until(lambda: all(server.exists(KEYS.result(job)) for job in ids), 60)
    wait_until(lambda: nameless <= set(server.hvals(KEYS.dead_messages)), 60)
    malformed = {letter for letter in server.hkeys(KEYS.dead) if letter.startswith(b"malformed-")}
    assert len(malformed) == len(nameless)
    server.delete(*map(KEYS.result, ids), KEYS.delayed(QUEUE))


def _sort(messages: set[bytes]) -> tuple[set[str], set[bytes]]:
    """Return the ids of the messages that have one, and the messages without. Jobs for later are left out."""
    ids, nameless = set(), set()
    for message in messages:
        claim = Claim(
            lease=Lease(name="me/1", queue=QUEUE, origins=((FIRST_SOURCE, 1),)), queued_messages=[message]
        )
        parsed = open_claim(claim, datetime.now(UTC), lambda _model, _version: Limits())
        ids |= {claimed.job.id for claimed in parsed.jobs}
        ids |= {result.claimed.job.id for result in parsed.finished}
        nameless |= {entry.message for entry in parsed.malformed}
    return ids, nameless
