"""A notifier that is killed at any step, and a Redis that restarts, lose no notice."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
import redis

from headrace import Client
from headrace.wire.keys import Keys
from headrace_worker.local.embedded_redis import EmbeddedRedis
from tests.support import ROOT
from tests.support.answering_worker import publish_outcomes, success
from tests.support.notifier_crash_points import DELIVERY_STEPS
from tests.support.notify_site import Site
from tests.support.waiting import wait_until
from tests.support.webhooks import OK, Answer, Receiver, endpoint

KEYS = Keys()
#: A claim lasts twice this many seconds and 10 more, see `NoticeStore.claim_seconds`.
TIMEOUT = 5


def crash(site: Site, endpoints: str, step: str, after: int = 0) -> None:
    """Run a notifier until it is killed at a step."""
    settings = {"CRASH_AT": step, "CRASH_AFTER": str(after), "PYTHONPATH": str(ROOT)}
    command = ["tests.support.notifier_crash_points"]
    with site.notifier(endpoints, name=f"crash-{step}", command=command, **settings) as child:
        wait_until(lambda: child.process.poll() is not None, describe=lambda: child.log.read_text()[-2000:])
        assert child.process.returncode == -signal.SIGKILL


@pytest.mark.parametrize("step", DELIVERY_STEPS)
def test_a_notifier_killed_at_any_step_of_a_delivery_loses_no_notice(site: Site, step: str):
    ids = site.end_jobs(*(f"job-{number}" for number in range(40)))
    with Receiver() as receiver:
        crash(site, endpoint(receiver.url), step, after=0 if step in {"taking", "taken"} else 9)
        claimed = site.server.zcount(KEYS.notices_due, site.server.time()[0] * 1000 + 5000, "+inf")
        assert (claimed > 0) == (step != "taking")
        site.expire_claims()
        with site.notifier(endpoint(receiver.url)):
            wait_until(site.is_over)
    assert set(receiver.ids) == ids
    assert not site.server.exists(KEYS.dead)


@pytest.mark.parametrize(
    ("step", "schedule"), [("postponing", "0,0"), ("postponed", "0,0"), ("burying", "0"), ("buried", "0")]
)
def test_a_notifier_killed_while_it_records_a_failure_loses_no_notice(site: Site, step: str, schedule: str):
    ids = site.end_jobs(*(f"job-{number}" for number in range(20)))
    with Receiver(lambda *_: Answer(500)) as receiver:
        crash(site, endpoint(receiver.url), step, after=4)
        site.expire_claims()
        settings = {"HEADRACE_NOTIFY_SCHEDULE": schedule}
        with site.notifier(endpoint(receiver.url), **settings):
            wait_until(site.is_over)
    assert set(receiver.ids) == ids
    assert {name.decode() for name in site.server.hkeys(KEYS.dead)} == ids


def test_a_claim_of_a_killed_notifier_ends_by_itself(site: Site):
    ids = site.end_jobs("a", "b")
    with Receiver() as receiver:
        crash(site, endpoint(receiver.url), "posting")
        (last,) = [score for _, score in site.server.zrange(KEYS.notices_due, -1, -1, withscores=True)]
        seconds = site.server.time()[0]
        assert seconds < last / 1000 <= seconds + 1 + 2 * TIMEOUT + 10
        assert {name.decode() for name in site.server.hkeys(KEYS.notices)} == ids


def test_of_two_notifiers_one_is_killed_and_together_they_tell_all(site: Site):
    ids = site.end_jobs(*(f"job-{number}" for number in range(600)))
    with Receiver() as receiver:
        table = endpoint(receiver.url)
        with (
            site.notifier(table, name="one") as first,
            site.notifier(table, name="two"),
        ):
            wait_until(lambda: len(receiver.ids) > 100)
            first.process.kill()
            first.process.wait()
            wait_until(lambda: not site.count_due())
            site.expire_claims()
            wait_until(site.is_over)
        assert set(receiver.ids) == ids
        assert len(receiver.ids) <= len(ids) + 128


def test_a_redis_that_restarts_keeps_every_notice_and_the_notifier_goes_on(tmp_path: Path):
    jobs = [f"job-{number}" for number in range(300)]
    with (
        EmbeddedRedis("--appendonly", "yes", "--appendfsync", "always") as own,
        Receiver() as receiver,
        redis.Redis.from_url(own.url) as server,
        Client(own.url, check=False) as client,
    ):
        site = Site(own.url, server, client, tmp_path)
        client.submit_many("churn", [[{"age": 41}]] * len(jobs), ids=jobs, notify="orders")
        with site.notifier(endpoint(receiver.url)) as child:
            publish_outcomes(server, *map(success, jobs[:150]))
            wait_until(lambda: len(receiver.ids) > 50)
            own.kill()
            own.start()
            publish_outcomes(server, *map(success, jobs[150:]))
            wait_until(lambda: not site.count_due())
            site.expire_claims()
            wait_until(site.is_over, describe=lambda: child.log.read_text()[-2000:])
            assert child.process.poll() is None
    assert set(receiver.ids) == {f"{job}.success" for job in jobs}


def test_a_notifier_that_is_told_to_stop_finishes_its_requests(site: Site):
    ids = site.end_jobs("a", "b", "c")
    stopped: list[bool] = []

    def answer(request: object, before: object) -> Answer:
        if not stopped:
            stopped.append(True)
            child.process.terminate()
        return OK

    with Receiver(answer) as receiver, site.notifier(endpoint(receiver.url)) as child:
        assert child.process.wait(15) == 0
    assert set(receiver.ids) == ids
    assert site.is_over()
