"""A store of tasks as Flower has it."""

from __future__ import annotations

from typing import Any

import flower.events
import pytest
from flower.utils import search

from headrace_worker.dashboard.task_search import add_terms
from headrace_worker.dashboard.tasks import JobsState


class Metrics:
    """Flower's metrics, which count nothing here."""

    def observe_task(self, *_: Any) -> None: ...

    def observe_worker(self, *_: Any) -> None: ...


@pytest.fixture
def state(monkeypatch: pytest.MonkeyPatch) -> JobsState:
    """Return an empty store of tasks whose metrics are those of this test alone."""
    for name in ("SEARCH_FIELDS", "EXACT_FIELDS"):
        monkeypatch.setattr(search, name, getattr(search, name))
    add_terms()
    monkeypatch.setattr(flower.events, "get_prometheus_metrics", Metrics)
    return JobsState(max_tasks_in_memory=100)
