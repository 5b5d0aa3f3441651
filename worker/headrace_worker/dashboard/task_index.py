"""The index of the Tasks page, for search and sort: a document for each task, with the value of each column.

Flower's own documents hold texts only, so a sort read each column from the task itself: 1.6 s for the wait of
100,000 jobs. Here a column is an attribute, and equal texts are one object in memory.
"""

from __future__ import annotations

import heapq
import sys
from functools import lru_cache
from operator import attrgetter
from typing import Any

from flower.utils.search import SearchDocument, _kwargs_pairs, _normalize, _worker_name

#: The value of a number that a task does not have. It sorts before all others.
MISSING = -1.0

#: The share of all documents up to which a heap finds the first ones faster than a sort.
_HEAP_SHARE = 0.05

#: Columns by which tasks are sorted -> attribute of a document.
SORT_ATTRIBUTES = {
    **{name: name for name in ("name", "state", "args", "kwargs", "result", "worker")},
    **{name: name for name in ("uuid", "received", "started", "runtime", "timestamp")},
    **{name: name for name in ("model", "reason", "wait", "instances", "attempts")},
    "version": "version_number",
    "exception": "error",
}


class JobDocument(SearchDocument):  # type: ignore[misc]  # flower has no types
    """The searched and sorted values of a task. Texts are in the form that a search compares, "" where missing."""

    __slots__ = (
        "attempts",
        "error",
        "instances",
        "key",
        "model",
        "reason",
        "received",
        "runtime",
        "started",
        "timestamp",
        "uuid",
        "version",
        "version_number",
        "wait",
    )

    uuid: str
    #: The id, as a search compares it.
    key: str
    #: Unix time and seconds; MISSING where the task has none.
    timestamp: float
    received: float
    started: float
    runtime: float
    wait: float
    instances: float
    attempts: float
    version_number: float
    model: str
    version: str
    reason: str
    error: str

    @classmethod
    def from_task(cls, task: Any) -> JobDocument:
        """Return the document of a task."""
        texts = [normalise(getattr(task, name, None)) for name in ("name", "state")]
        texts.append(normalise(_worker_name(task)))
        texts += [normalise(getattr(task, name, None)) for name in ("args", "kwargs", "result")]
        kwargs = getattr(task, "kwargs", None)
        pairs = _cached_pairs(kwargs) if type(kwargs) is str else _kwargs_pairs(kwargs)
        document = cls(*texts, all_text=sys.intern("\x00".join(texts)), kwargs_pairs=pairs)
        uuid = document.uuid = str(task.uuid)
        # An id in small letters, as nearly all are, is one object with its key.
        document.key = uuid if uuid == (key := uuid.casefold()) else key
        for name in ("timestamp", "received", "started", "runtime", "wait", "instances", "attempts"):
            setattr(document, name, _number(getattr(task, name, None)))
        document.model = normalise(getattr(task, "model", None))
        document.version = normalise(getattr(task, "version", None))
        document.version_number = _number(document.version)
        document.reason = normalise(getattr(task, "reason", None))
        document.error = normalise(getattr(task, "exception", None))
        return document


def sort_page(
    documents: list[JobDocument], sort_by: str, *, descending: bool, offset: int, limit: int
) -> list[JobDocument]:
    """Return a page of the documents in the order of a column. Those of equal values are in the order given.

    The descending order is the ascending one from its end. Raises KeyError for an unknown column.
    """
    first, end, count = offset, min(offset + limit, len(documents)), len(documents)
    if first >= end:
        return []
    if first > count - end:  # the page is nearer to the end: read the opposite order
        page = sort_page(documents, sort_by, descending=not descending, offset=count - end, limit=end - first)
        return page[::-1]
    key = attrgetter(SORT_ATTRIBUTES[sort_by])
    ordered = reversed(documents) if descending else documents
    if end > count * _HEAP_SHARE:
        return sorted(ordered, key=key, reverse=descending)[first:end]
    return (heapq.nlargest if descending else heapq.nsmallest)(end, ordered, key=key)[first:]


def normalise(value: Any) -> str:
    """Return a value in the form that a search compares. Equal texts are one object."""
    if not value:
        return ""
    return _cached_text(value) if type(value) is str else sys.intern(_normalize(value))


@lru_cache(maxsize=4096)
def _cached_text(text: str) -> str:
    return sys.intern(text.casefold())


_cached_pairs = lru_cache(maxsize=1024)(_kwargs_pairs)


def _number(value: Any) -> float:
    if type(value) is float or type(value) is int:
        return value
    return _parse_number(value) if type(value) is str else MISSING


@lru_cache(maxsize=1024)
def _parse_number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return MISSING
