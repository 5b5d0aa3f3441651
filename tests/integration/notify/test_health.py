"""The pages of a notifier for orchestrators and Prometheus: `/live`, `/ready` and `/metrics`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest

from headrace_gateway.notify.health import NotifierHealth
from headrace_worker.local.embedded_redis import EmbeddedRedis
from tests.support.connections import free_port
from tests.support.notify_site import Site
from tests.support.stored_notices import store_notice
from tests.support.waiting import wait_until
from tests.support.webhooks import SILENT, Answer, Receiver, endpoint, running_notifier


def answer(port: int, path: str) -> tuple[int, str]:
    """Return the status and the text of a page; 0 while nothing listens."""
    try:
        reply = httpx.get(f"http://127.0.0.1:{port}{path}", timeout=5)
    except httpx.TransportError:
        return 0, ""
    return reply.status_code, reply.text


@contextmanager
def scraped_notifier(site: Site, url: str) -> Iterator[int]:
    """Run a notifier with one endpoint; yield the port of its pages once it is ready."""
    port = free_port()
    with site.notifier(endpoint(url), HEADRACE_NOTIFY_METRICS_PORT=str(port)):
        wait_until(lambda: answer(port, "/ready") == (200, "all is well\n"))
        yield port


def test_a_notifier_without_redis_lives_and_is_not_ready(tmp_path):
    port = free_port()
    settings = {"HEADRACE_NOTIFY_METRICS_PORT": str(port), "HEADRACE_COMMAND_TIMEOUT": "1"}
    with (
        EmbeddedRedis() as redis,
        running_notifier(redis.url, tmp_path, endpoint("http://127.0.0.1:9/"), **settings) as notifier,
    ):
        wait_until(lambda: answer(port, "/ready")[0] == 200)
        redis.stop()
        wait_until(lambda: answer(port, "/ready")[0] == 503)
        assert answer(port, "/ready")[1] == "the notifier waits for Redis, which does not answer\n"
        assert answer(port, "/live") == (200, "all is well\n")
        with EmbeddedRedis(port=redis.port):
            wait_until(lambda: answer(port, "/ready")[0] == 200)
        notifier.check()


def test_a_notifier_that_stops_is_not_ready_and_lives_until_its_requests_have_ended(site: Site):
    port = free_port()
    with (
        Receiver(lambda *_: SILENT) as receiver,
        site.notifier(endpoint(receiver.url), HEADRACE_NOTIFY_METRICS_PORT=str(port)) as notifier,
    ):
        site.end_jobs("a")
        wait_until(lambda: receiver.ids)
        notifier.process.terminate()
        wait_until(lambda: answer(port, "/ready") == (503, "the notifier stops\n"))
        assert answer(port, "/live")[0] == 200
        receiver.release()
        assert notifier.process.wait(10) == 0


def test_a_notifier_that_does_not_look_for_notices_any_more_does_not_live(monkeypatch: pytest.MonkeyPatch):
    seconds = 0.0
    monkeypatch.setattr("time.monotonic", lambda: seconds)
    health = NotifierHealth(max_round=100)
    health.note_problem(None)
    seconds = 99.0
    assert health.hang() is None
    assert health.reason() is None
    seconds = 101.0
    assert health.hang() == health.reason() == "the notifier has not looked for notices for 101 s"
    health.note_look()
    assert health.hang() is None


def test_dead_letters_are_counted_from_a_zero_that_was_scraped(site: Site):
    with Receiver(lambda *_: Answer(410)) as receiver, scraped_notifier(site, receiver.url) as port:
        before = answer(port, "/metrics")[1]
        for name in ("orders", ""):
            assert f'headrace_notify_dead_letters_total{{endpoint="{name}"}} 0.0\n' in before
        site.end_jobs("a")
        site.end_jobs("b", notify="nobody")
        store_notice(site.server, "bad", b"{")
        wait_until(lambda: len(site.letter_ids()) == 3)
        shown = answer(port, "/metrics")[1]
    assert 'headrace_notify_dead_letters_total{endpoint="orders"} 1.0\n' in shown
    assert 'headrace_notify_dead_letters_total{endpoint=""} 2.0\n' in shown
    assert 'headrace_notify_attempts_total{endpoint="orders",result="http-410"} 1.0\n' in shown
    assert 'headrace_notify_seconds_bucket{endpoint="orders",le="15.0"} 1.0\n' in shown


def test_an_endpoint_that_is_added_to_the_file_shows_its_zero_with_its_first_request(site: Site):
    with Receiver() as receiver, scraped_notifier(site, receiver.url) as port:
        with (site.folder / "notify.toml").open("a") as file:
            file.write(endpoint(receiver.url, "reports"))
        site.end_jobs("a", notify="reports")
        wait_until(site.is_over)
        assert 'headrace_notify_dead_letters_total{endpoint="reports"} 0.0\n' in answer(port, "/metrics")[1]
