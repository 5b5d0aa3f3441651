"""A local endpoint that takes what OpenTelemetry sends by OTLP over HTTP, and tells what came."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.support.http_endpoint import Endpoint


class Collector(Endpoint):
    """Takes what OTLP over HTTP sends."""

    def __init__(self) -> None:
        super().__init__()
        self.endpoint = f"http://127.0.0.1:{self.port}"

    def spans(self) -> list[Any]:
        """Every span that has come."""
        found = []
        for body in list(self.bodies):
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                for scope in resource.scope_spans:
                    found += scope.spans
        return found

    def wait(self, wanted: Callable[[Any], bool], count: int = 1) -> list[Any]:
        """So many wanted spans, once they have come."""
        deadline = time.monotonic() + 15
        while time.monotonic() < deadline:
            if len(found := [span for span in self.spans() if wanted(span)]) >= count:
                return found
            time.sleep(0.02)
        raise AssertionError(f"only {sorted(span.name for span in self.spans())} came")
