"""The reports on a bulk run by a real worker: an event for each chunk, lines in the log, one event for Sentry."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from headrace.monitor.activity import Event, decode_events
from headrace_worker.local.embedded_redis import EmbeddedRedis
from tests.support.bulk_site import KEYS, BulkSite, add_bulk_model
from tests.support.misbehaving_models import action_number, raise_system_exit
from tests.support.sentry_endpoint import Sentry
from tests.support.waiting import wait_until

CHUNKS = 20
RAISE = action_number(raise_system_exit)
#: A value of rows that no report may hold.
SECRET = 47118.25


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return add_bulk_model(tmp_path_factory.mktemp("store"))


@pytest.fixture
def site(models: Path, tmp_path: Path) -> Iterator[BulkSite]:
    (tmp_path / "out").mkdir()
    with EmbeddedRedis("--appendfsync", "no") as server:
        yield BulkSite(server, models, tmp_path)


@pytest.fixture
def sentry() -> Iterator[Sentry]:
    sentry = Sentry()
    yield sentry
    sentry.stop()


def write_tables(site: BulkSite, *, failing: int = 0) -> None:
    """Write a file for each chunk, of ten rows; `failing` rows of each make the model fail."""
    action = dict.fromkeys(range(failing), float(RAISE))
    for number in range(CHUNKS):
        site.write_table(10, name=f"{number:02}.parquet", action=action, seconds=dict.fromkeys(range(10), SECRET))


def log_of(site: BulkSite) -> list[str]:
    return (site.folder / "worker.log").read_text().splitlines()


def test_a_run_of_twenty_chunks_has_twenty_events_of_chunks_and_three_lines(site: BulkSite) -> None:
    write_tables(site)
    with redis.Redis.from_url(site.redis.url) as server, server.pubsub() as subscriber:
        subscriber.psubscribe("/0.celeryev/*")
        with site.worker("--loglevel", "INFO"):
            site.submit(input="in:*.parquet")
            assert site.wait().state == "success"
            events: list[Event] = []

            def has_finished() -> bool:
                while (message := subscriber.get_message(timeout=0.1)) is not None:
                    if message["type"] == "pmessage":
                        events.extend(decode_events(message["data"]))
                return any(event.uuid == "nightly:finish" and event.type == "task-succeeded" for event in events)

            wait_until(has_finished)
        assert server.hget(KEYS.run("nightly"), "receipt_ms") is not None
    of_run = [event for event in events if event.uuid.startswith("nightly:")]
    jobs = {"nightly:plan", "nightly:finish", *(f"nightly:{number}" for number in range(CHUNKS))}
    ended_jobs = Counter(event.uuid for event in of_run if event.type == "task-succeeded")
    assert ended_jobs == dict.fromkeys(jobs, 1)
    kinds = Counter(event.type for event in of_run)
    assert kinds == dict.fromkeys(("task-received", "task-started", "task-succeeded"), CHUNKS + 2)
    assert {(event.model, event.queue) for event in of_run} == {("doubling", "bulk.doubling")}
    lines = [line for line in log_of(site) if "bulk run" in line]
    assert len(lines) == 2, lines
    assert "planned the bulk run nightly: 20 chunks" in lines[0]
    assert "the bulk run nightly has finished after" in lines[1]
    assert "200 rows, 0 of them failed" in lines[1]


def test_a_failed_run_is_one_event_of_sentry_and_one_line_without_any_value(
    site: BulkSite, sentry: Sentry
) -> None:
    write_tables(site, failing=2)
    with site.worker("--concurrency", "2", SENTRY_DSN=sentry.dsn):
        site.submit(input="in:*.parquet", max_failed=3)
        assert site.wait().state == "failure"
        event = sentry.wait("event", lambda _: True)
        site.submit("other", input="in:none-*.parquet")
        assert site.wait("other").state == "failure"
        sentry.wait("event", lambda event: event["tags"].get("headrace.run") == "other")
    assert event["message"] == "the bulk run nightly of doubling failed: too many failed rows"
    assert event["fingerprint"] == ["headrace failed bulk run", "nightly", "doubling", "too many failed rows"]
    tags = {name: value for name, value in event["tags"].items() if name.startswith("headrace.")}
    assert tags == {
        "headrace.run": "nightly",
        "headrace.model": "doubling",
        "headrace.version": "1",
        "headrace.reason": "too many failed rows",
    }
    assert event["contexts"]["headrace"]["failed_rows"] > 3
    assert [event["tags"]["headrace.run"] for event in sentry.events] == ["nightly", "other"]
    assert "47118" not in b"".join(sentry.bodies).decode()
    lines = [line for line in log_of(site) if "bulk run nightly failed" in line]
    assert len(lines) == 1, lines
    assert "too many failed rows; `headrace bulk failures nightly` says why" in lines[0]
    assert "47118" not in "\n".join(log_of(site))


def test_a_run_that_is_resumed_and_fails_again_is_reported_again(site: BulkSite, sentry: Sentry) -> None:
    site.input.mkdir()
    with site.worker(SENTRY_DSN=sentry.dsn):
        site.submit()
        assert site.wait().state == "failure"
        sentry.wait("event", lambda _: True)
        site.resume()
        wait_until(lambda: len(sentry.events) == 2)
        site.write_table(100)
        site.resume()
        assert site.wait().state == "success"
    reasons = {event["tags"]["headrace.reason"] for event in sentry.events}
    assert (len(sentry.events), reasons) == (2, {"the plan failed (bad input)"})
