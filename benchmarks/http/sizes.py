"""The sizes of the measurements of the HTTP gateway."""

from __future__ import annotations

from typing import NamedTuple


class Sizes(NamedTuple):
    """The size of each measurement."""

    #: Turns of every server.
    rounds: int
    #: Trees of the forest.
    trees: int
    #: Seconds of load, and of the load before it that is not measured.
    seconds: float
    warm_up_seconds: float
    #: Connections of the load; each has one request under way.
    connections: int
    #: Predictions of the client without HTTP.
    predictions: int
    #: Event streams and slow requests that stay open beside the load.
    streams: int
    slow_requests: int
    #: Rows of the CSV file.
    csv_rows: int


LONG = Sizes(
    rounds=3,
    trees=100,
    seconds=6.0,
    warm_up_seconds=1.5,
    connections=64,
    predictions=20_000,
    streams=1_000,
    slow_requests=200,
    csv_rows=200_000,
)
SHORT = Sizes(
    rounds=1,
    trees=5,
    seconds=0.7,
    warm_up_seconds=0.3,
    connections=8,
    predictions=400,
    streams=20,
    slow_requests=5,
    csv_rows=2_000,
)
