"""The decisions of a wait for a run: how often to look, and which end is an error."""

from __future__ import annotations

import msgspec
import pytest
from redis import exceptions

from headrace.bulk import make_run
from headrace.bulk.wait import next_poll, run_timeout, stays_away, verify_success
from headrace.errors import BrokerUnavailable, RunCancelled, RunFailed
from headrace.wire.bulk import RunProgress

PLANNING = RunProgress(run=make_run("churn", "in:rows", "out:s", name="nightly"), state="planning", submitted_ms=0)


def test_looks_become_rarer_until_two_a_second():
    delays = [next_poll(polls) for polls in range(2000)]
    assert delays == sorted(delays)
    assert (delays[0], delays[-1]) == (0.05, 0.5)


def test_a_success_is_returned_even_with_failed_rows():
    success = msgspec.structs.replace(PLANNING, state="success", rows_failed=3)
    assert verify_success(success) is success


def test_a_failure_says_why_and_how_to_go_on():
    unplanned = msgspec.structs.replace(PLANNING, state="failure", error="in:rows is no folder")
    with pytest.raises(RunFailed, match=r"in:rows is no folder\. .*; other arguments need another name"):
        verify_success(unplanned)
    with pytest.raises(RunFailed, match="`headrace bulk failures nightly` says what failed") as raised:
        verify_success(msgspec.structs.replace(unplanned, chunks=2))
    assert raised.value.run == "nightly"
    assert not isinstance(raised.value, RunCancelled)


def test_a_cancelled_run_is_an_error_of_its_own():
    with pytest.raises(RunCancelled, match="`headrace bulk resume nightly`"):
        verify_success(msgspec.structs.replace(PLANNING, state="cancelled"))


def test_a_timeout_says_how_far_the_run_is_or_that_no_worker_has_planned_it():
    running = msgspec.structs.replace(PLANNING, state="running", started_ms=1, rows=200, rows_done=50)
    assert "goes on after 5 s, 25% done" in str(run_timeout("nightly", running, 5))
    assert "does a worker serve its model" in str(run_timeout("nightly", PLANNING, 5))


def test_a_refusal_ends_a_wait_and_an_outage_does_not():
    refused, outage = BrokerUnavailable("refused"), BrokerUnavailable("away")
    refused.__cause__, outage.__cause__ = exceptions.NoPermissionError("no"), exceptions.ConnectionError("away")
    assert stays_away(refused)
    assert not stays_away(outage)
