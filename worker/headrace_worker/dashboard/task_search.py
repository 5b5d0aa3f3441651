"""The search of the Tasks page: `model:`, `version:`, `error:` and `reason:` beside Flower's own terms.

Flower's parser knows its own fields only, and its index has a document for each task. The added terms read the
tasks themselves, so they take no memory.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import flower.utils.search
from flower.utils.search import TaskSearchEngine, Term

#: Terms that compare a whole value. `error` finds a part of the exception, as Flower's own terms do.
_EXACT = frozenset({"model", "version", "reason"})
_ADDED = _EXACT | {"error"}
#: Columns that sort by number.
_NUMBERS = frozenset({"wait", "attempts", "instances", "version"})


class JobSearchEngine(TaskSearchEngine):  # type: ignore[misc]  # flower has no types
    """Flower's search with terms for jobs. Flower makes one for each store of tasks."""

    def __init__(self) -> None:
        super().__init__()
        self._tasks: Any = {}

    def search(self, tasks: Any, *args: Any, **kwargs: Any) -> Any:
        """Return a page of the tasks that match. Raises QuerySyntaxError."""
        self._tasks = getattr(tasks, "data", tasks)
        return super().search(tasks, *args, **kwargs)

    def _term_ids(self, term: Term, candidates: Iterable[str]) -> set[str]:
        if term.field not in _ADDED:
            matching: set[str] = super()._term_ids(term, candidates)
            return matching
        value = term.value.casefold()
        return {job for job in candidates if (task := self._tasks.get(job)) and _matches(task, term.field, value)}

    def _estimate_size(self, expression: Any) -> Any:
        if isinstance(expression, Term) and expression.field in _ADDED:
            return len(self.documents), -len(expression.value)
        return super()._estimate_size(expression)


def _matches(task: Any, field: str, value: str) -> bool:
    actual = str((task.exception if field == "error" else getattr(task, field, None)) or "").casefold()
    return actual == value if field in _EXACT else value in actual


def add_terms() -> None:
    """Make Flower's parser and its order of tasks know the fields of jobs."""
    flower.utils.search.SEARCH_FIELDS |= _ADDED
    flower.utils.search.EXACT_FIELDS |= _EXACT
    flower.utils.search._task_sort_key = _sort_key  # noqa: SLF001  # it has no hook for an order


_flower_sort_key = flower.utils.search._task_sort_key  # noqa: SLF001  # as above


def _sort_key(task: Any, sort_by: str, job: str) -> tuple[bool, Any, str]:
    """Order by number where a column holds numbers: Flower orders every column but its own as text."""
    if sort_by not in _NUMBERS:
        key: tuple[bool, Any, str] = _flower_sort_key(task, sort_by, job)
        return key
    try:
        return True, float(getattr(task, sort_by, None)), job  # type: ignore[arg-type]  # None is no number
    except (TypeError, ValueError):
        return False, 0.0, job
