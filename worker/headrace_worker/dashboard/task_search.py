"""The search of the Tasks page: `model:`, `version:`, `error:` and `reason:` beside Flower's own terms.

Flower's parser knows its own fields only. Its search makes sets of ids, and computes in Python by which value each
task is sorted. This one filters lists of documents and sorts them by an attribute, so that a page of 100,000 jobs
takes tens of milliseconds, whatever is searched and sorted.
"""

from __future__ import annotations

from operator import attrgetter
from typing import Any

import flower.utils.search
from flower.utils.search import (
    And,
    MatchAll,
    Or,
    SearchPage,
    TaskSearchEngine,
    Term,
    _kwargs_query_pair,
    _normalize,
    parse_query,
)

from headrace_worker.dashboard.task_index import MISSING, SORT_ATTRIBUTES, JobDocument, sort_page

#: Terms that compare a whole value. `error` finds a part of the exception, as Flower's own terms do.
_EXACT = frozenset({"model", "version", "reason"})
_ADDED = _EXACT | {"error"}

Documents = list[JobDocument]


class JobSearchEngine(TaskSearchEngine):  # type: ignore[misc]  # flower has no types
    """Flower's search with terms for jobs. Flower makes one for each store of tasks."""

    documents: dict[str, JobDocument]

    def upsert(self, task: Any) -> None:
        """Store the document of a task, in place of its former one."""
        if getattr(task, "uuid", None):
            self._index(str(task.uuid), task)

    def _index(self, task_id: str, task: Any) -> None:
        self.documents[task_id] = JobDocument.from_task(task)

    def remove(self, task_id: str) -> None:
        """Forget the document of a task."""
        self.documents.pop(task_id, None)

    def search(
        self,
        tasks: Any,
        query: str = "",
        *,
        task_type: str | None = None,
        worker: str | None = None,
        state: str | None = None,
        received_start: float | None = None,
        received_end: float | None = None,
        sort_by: str | None = None,
        descending: bool = False,
        offset: int = 0,
        limit: int | None = None,
    ) -> SearchPage:
        """Return a page of the tasks that match. Raises QuerySyntaxError."""
        expression = parse_query(query)
        task_map = getattr(tasks, "data", tasks)
        documents = list(self.documents.values())
        if len(documents) != len(task_map):  # a restored store may have more tasks than its limit allows
            documents = [document for document in documents if document.uuid in task_map]
        for name, value in (("name", task_type), ("worker", worker), ("state", state)):
            if value:
                documents = _equal(documents, name, _normalize(value))
        if received_start is not None or received_end is not None:
            earliest, latest = received_start or 0.0, float("inf") if received_end is None else received_end
            documents = [
                document
                for document in documents
                if document.received == MISSING or earliest <= document.received <= latest
            ]
        documents = _select(expression, documents)
        if sort_by not in SORT_ATTRIBUTES:
            sort_by, descending = "timestamp", True
        length = len(documents) if limit is None else max(limit, 0)
        page = sort_page(documents, sort_by, descending=descending, offset=max(offset, 0), limit=length)
        return SearchPage([document.uuid for document in page], len(documents), len(task_map))

    def find_started_with(self, task_id: str) -> list[str]:
        """Return the ids of the tasks that a worker started in the same step: all of a claim have one moment."""
        own = self.documents.get(task_id)
        if own is None or own.started == MISSING:
            return []
        started = _equal(list(self.documents.values()), "started", own.started)
        return sorted(other.uuid for other in _equal(started, "worker", own.worker) if other is not own)


def _select(expression: Any, documents: Documents) -> Documents:
    """Return the documents that match an expression, in their order."""
    match expression:
        case MatchAll():
            return documents
        case Term():
            return _match_term(expression, documents)
        case And():
            for child in expression.children:
                documents = _select(child, documents)
            return documents
        case Or():
            matching = {document for child in expression.children for document in _select(child, documents)}
            return [document for document in documents if document in matching]
        case _:
            raise TypeError(f"unsupported search expression: {type(expression)!r}")


def _match_term(term: Term, documents: Documents) -> Documents:
    value = _normalize(term.value)
    match term.field:
        case None:
            return [document for document in documents if value in document.key or value in document.all_text]
        case "state" | "model" | "version" | "reason":
            return _equal(documents, term.field, value)
        case "kwargs" if (pair := _kwargs_query_pair(value)) is not None:
            return [document for document in documents if pair in document.kwargs_pairs]
        case field:
            read = attrgetter(field)
            return [document for document in documents if value in read(document)]


def _equal(documents: Documents, attribute: str, value: Any) -> Documents:
    read = attrgetter(attribute)
    return [document for document in documents if read(document) == value]


def add_terms() -> None:
    """Make Flower's parser know the fields of jobs."""
    flower.utils.search.SEARCH_FIELDS |= _ADDED
    flower.utils.search.EXACT_FIELDS |= _EXACT
