"""The peers that are compared: name, title in the tables, and environment."""

from __future__ import annotations

from typing import NamedTuple


class PeerEntry(NamedTuple):
    """One row of the tables."""

    name: str
    title: str
    #: A file of requirements/; None for Headrace's own environment.
    environment: str | None
    #: The Python version it needs, where that is newer than Headrace's own.
    python: tuple[int, int] | None = None

    @property
    def module(self) -> str:
        """The name of its module in peers/."""
        return self.name.replace("-", "_")


#: Headrace first, then Celery, the reference, then the others by name.
PEERS = (
    PeerEntry("headrace", "Headrace", None),
    PeerEntry("headrace-watched", "Headrace, watched", None),
    PeerEntry("headrace-fast", "Headrace, fast runtimes", None),
    PeerEntry("celery-tuned", "Celery, tuned", "main"),
    PeerEntry("celery", "Celery", "main"),
    PeerEntry("arq", "arq", "redis5"),
    PeerEntry("celery-batches", "celery-batches", "batches"),
    PeerEntry("dramatiq", "dramatiq", "main"),
    PeerEntry("huey", "huey", "main"),
    PeerEntry("mayu", "mayu", "mayu", (3, 13)),
    PeerEntry("rq", "RQ", "main"),
    PeerEntry("saq", "saq", "redis5"),
    PeerEntry("streaq", "streaq", "main"),
    PeerEntry("taskiq", "taskiq", "main"),
)
#: Variants of Headrace, which do not count as "the best peer".
HEADRACE_VARIANTS = ("headrace", "headrace-watched", "headrace-fast")
