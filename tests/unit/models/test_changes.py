"""Aliases and pauses are read again when their count of changes moves, and now and then."""

from __future__ import annotations

from headrace_worker.models.changes import ChangeReader, Changes
from tests.support.fake_clock import FakeClock


def reading(changes: Changes) -> ChangeReader:
    """Return a reader that has read everything."""
    reader = ChangeReader(changes)
    assert reader.must_read()
    reader.record_read()
    return reader


def test_everything_is_read_again_only_when_the_count_has_changed() -> None:
    clock = FakeClock()
    changes = Changes(clock)
    changes.record(None)
    reader = reading(changes)
    assert not reader.must_read()
    for value in (b"1", b"2", None):
        changes.record(value)
        assert reader.must_read()
        assert reader.must_read(), "nothing was read"
        reader.record_read()
        assert not reader.must_read()


def test_a_change_during_a_reading_leads_to_another() -> None:
    changes = Changes(FakeClock())
    changes.record(b"1")
    reader = ChangeReader(changes)
    assert reader.must_read()
    changes.record(b"2")
    reader.record_read()
    assert reader.must_read()


def test_everything_is_read_while_the_count_is_not_known_and_after_a_long_time() -> None:
    clock = FakeClock()
    changes = Changes(clock)
    reader = reading(changes)
    assert reader.must_read(), "Redis has not answered yet"
    changes.record(b"1")
    reader = reading(changes)
    clock.advance(6)
    assert reader.must_read(), "Redis has not answered for seconds"
    changes.record(b"1")
    assert not reader.must_read()
    clock.advance(700)
    changes.record(b"1")
    assert reader.must_read()
