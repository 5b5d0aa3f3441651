"""The charts of the last hour as JSON: what the pages Queues and Models draw."""

from __future__ import annotations

import msgspec

from headrace_worker.dashboard.last_hour import MINUTES, Series
from headrace_worker.dashboard.page import Page


class Chart(msgspec.Struct, frozen=True, kw_only=True):
    """The last hour of a model, or of one of its versions."""

    model: str
    #: None for all versions together.
    version: str | None
    series: Series


class ChartPage(msgspec.Struct, frozen=True, kw_only=True):
    """The charts of the models and versions that were active in the last hour, sorted by both."""

    #: The beginning of the first minute, in unix seconds. Each series has a value for it and each that follows.
    start: int
    minutes: int
    charts: tuple[Chart, ...]


class Charts(Page):
    """The last hour, minute by minute, of all models or of the one in the query."""

    def get(self) -> None:
        """Answer with the charts as JSON."""
        last_hour, model = self.application.last_hour, self.query_text("model")
        charts = tuple(
            Chart(model=name, version=version or None, series=last_hour.read(name, version))
            for name, version in last_hour.names()
            if model in {None, name}
        )
        self.answer("", ChartPage(start=last_hour.start(), minutes=MINUTES, charts=charts))
