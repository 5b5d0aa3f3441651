"""Package the inverse of a transformer: its input is the output of `transform`, which has other columns."""

from __future__ import annotations

from typing import Any

import msgspec

from headrace_worker.packaging.source import Source
from headrace_worker.runtimes.estimator_tree import describe


class Inverse:
    """A transformer's `inverse_transform`. The names it was fitted on are not those of its input."""

    def __init__(self, estimator: Any) -> None:
        self.estimator = estimator

    def inverse_transform(self, data: Any, **arguments: Any) -> Any:
        """Return what the transformer returns."""
        return self.estimator.inverse_transform(data, **arguments)


def invert(source: Source) -> Source:
    """Return the source of the inverse; a source whose estimator has none is returned as it is."""
    if not callable(getattr(source.estimator, "inverse_transform", None)):
        return source
    estimator = source.estimator
    name = source.estimator_name or describe(estimator)
    return msgspec.structs.replace(source, estimator=Inverse(estimator), original=estimator, estimator_name=name)
