"""No script writes before it has checked: a call that meets a key of another type leaves everything as it was."""

from __future__ import annotations

import pytest
import redis

from headrace.connection.commands import execute
from tests.support.script_cases import CASES, Case, keys_of, name_of, script_names

#: A value of each type; the types that stand for a wrong one are those a key does not have.
_WRONG_VALUES = {
    "string": lambda db, key: db.set(key, "not ours"),
    "list": lambda db, key: db.rpush(key, "not ours"),
    "hash": lambda db, key: db.hset(key, "field", "not ours"),
}


def snapshot(db: redis.Redis) -> dict[bytes, tuple[bytes | None, bool]]:
    """Return every key with its content and whether it expires."""
    return {key: (db.dump(key), db.pttl(key) > 0) for key in db.scan_iter(count=1000)}


def each_key() -> list[tuple[str, int]]:
    return [(name, number) for name, case in CASES.items() for number in range(len(case.kinds))]


def test_every_script_has_a_case() -> None:
    assert script_names() == set(CASES)


@pytest.mark.parametrize("name", CASES)
def test_a_case_names_the_kinds_of_all_keys_and_its_call_succeeds(server: redis.Redis, name: str) -> None:
    case = CASES[name]
    command = case.prepare(server)
    assert name_of(command) == name
    assert len(keys_of(command)) == len(case.kinds)
    before = snapshot(server)
    execute(server, command)
    assert command.script is not None
    is_read_only = "no-writes" in command.script.library or name == "count_records"  # it writes what it read
    assert (snapshot(server) == before) == is_read_only


@pytest.mark.parametrize(("name", "number"), each_key())
def test_a_key_of_another_type_changes_nothing_and_is_named(server: redis.Redis, name: str, number: int) -> None:
    case: Case = CASES[name]
    for wrong in set(_WRONG_VALUES) - {case.kinds[number]}:
        server.flushall()
        command = case.prepare(server)
        key = keys_of(command)[number]
        server.delete(key)
        _WRONG_VALUES[wrong](server, key)
        before = snapshot(server)
        if case.kinds[number] == "any":
            execute(server, command)
            continue
        with pytest.raises(redis.ResponseError, match="WRONGTYPE") as refusal:
            execute(server, command)
        assert snapshot(server) == before
        assert command.script is not None
        if "no-writes" not in command.script.library:
            assert f"(key {key})" in str(refusal.value)


@pytest.mark.parametrize("value", ["x", "9" * 30, "-1", "1.5"])
@pytest.mark.parametrize("name", ["publish_claim", "store_dead_letter", "trim_dead_letters"])
def test_a_number_of_dropped_letters_that_is_none_changes_nothing(
    server: redis.Redis, name: str, value: str
) -> None:
    command = CASES[name].prepare(server)
    server.set("headrace:dead:dropped", value)
    before = snapshot(server)
    with pytest.raises(redis.ResponseError, match="headrace:dead:dropped"):
        execute(server, command)
    assert snapshot(server) == before


@pytest.mark.parametrize("field", ["succeeded", "difference_sum", "largest_difference"])
@pytest.mark.parametrize("value", ["x", "inf", "nan", "1e308", " 1", "", b"\xff"])
def test_statistics_that_are_no_numbers_change_nothing(
    server: redis.Redis, field: str, value: str | bytes
) -> None:
    command = CASES["add_version_stats"].prepare(server)
    (key,) = keys_of(command)
    server.hset(key, field, value)
    before = snapshot(server)
    if value == "1e308":  # a number, if a large one
        execute(server, command)
        return
    with pytest.raises(redis.ResponseError, match=f"{field} is no finite number"):
        execute(server, command)
    assert snapshot(server) == before
