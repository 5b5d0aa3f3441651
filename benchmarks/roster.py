"""Who takes part: every peer, what it is called, and the environment it lives in."""

from __future__ import annotations

from typing import NamedTuple


class Entry(NamedTuple):
    """One row of the tables."""

    name: str
    title: str
    #: A file of requirements/, or None for the environment of Headrace itself.
    environment: str | None
    #: The Python it needs, where that is newer than Headrace's own.
    python: tuple[int, int] | None = None

    @property
    def module(self) -> str:
        """Its file in peers/."""
        return self.name.replace("-", "_")


#: Headrace first, then the yardstick, then the others by name.
ROSTER = (
    Entry("headrace", "Headrace", None),
    Entry("headrace-watched", "Headrace, watched", None),
    Entry("headrace-fast", "Headrace, fast runtimes", None),
    Entry("celery-tuned", "Celery, tuned", "main"),
    Entry("celery", "Celery", "main"),
    Entry("arq", "arq", "redis5"),
    Entry("celery-batches", "celery-batches", "batches"),
    Entry("dramatiq", "dramatiq", "main"),
    Entry("huey", "huey", "main"),
    Entry("mayu", "mayu", "mayu", (3, 13)),
    Entry("rq", "RQ", "main"),
    Entry("saq", "saq", "redis5"),
    Entry("streaq", "streaq", "main"),
    Entry("taskiq", "taskiq", "main"),
)
#: Ours, and the variations of Celery itself: neither is "the best peer".
OURS = ("headrace", "headrace-watched", "headrace-fast")
