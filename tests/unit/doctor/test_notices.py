"""`headrace doctor` finds notices that nobody delivers."""

from __future__ import annotations

import pytest

from headrace.doctor.service import ServiceState, check_service
from headrace.inspection.notices import NoticeState


def findings(notices: NoticeState | None) -> list[str]:
    state = ServiceState(now_ms=1, models=(), lease_expiries_ms=(), notices=notices)
    return [f"{finding.subject}: {finding.actual}" for finding in check_service(state)]


def test_notices_that_are_late_are_a_finding():
    assert findings(NoticeState(open=5, waiting=3, late=2)) == ["notices: 2 notices due for more than a minute"]


@pytest.mark.parametrize("notices", [None, NoticeState(), NoticeState(open=5, waiting=3)])
def test_notices_that_wait_for_their_next_attempt_are_none(notices: NoticeState | None):
    assert findings(notices) == []
