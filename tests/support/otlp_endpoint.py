"""A local endpoint that stores the spans OpenTelemetry sends by OTLP over HTTP."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.support.http_endpoint import Endpoint
from tests.support.waiting import wait_until


class Collector(Endpoint):
    """An OpenTelemetry collector that stores spans."""

    def __init__(self) -> None:
        super().__init__()
        self.endpoint = f"http://127.0.0.1:{self.port}"

    def spans(self) -> list[Any]:
        """Return every span that has arrived."""
        return [
            span
            for body in list(self.bodies)
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    def wait(self, matches: Callable[[Any], bool], count: int = 1) -> list[Any]:
        """Wait until at least `count` spans match, and return them."""

        def matching() -> list[Any]:
            spans = [span for span in self.spans() if matches(span)]
            return spans if len(spans) >= count else []

        return wait_until(matching, 15, lambda: sorted(span.name for span in self.spans()))
