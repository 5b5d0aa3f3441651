"""Headrace without Celery's events for its jobs."""

from __future__ import annotations

from benchmarks.peers import headrace


class Client(headrace.Client):
    settings = "HEADRACE_EVENTS=0"

    def environ(self) -> dict[str, str]:
        return {**super().environ(), "HEADRACE_EVENTS": "0"}
