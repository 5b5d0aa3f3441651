"""The operations of bulk runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from headrace_gateway.bulk import RunBody
from headrace_gateway.openapi.build import Spec, answer, json_content, operation, parameter, ref
from headrace_gateway.openapi.native import BODY_PROBLEMS, PREFER
from headrace_gateway.openapi.requests import struct_schema

_LIMIT: Spec = {"type": "integer", "minimum": 1, "maximum": 1000}
_RUN = parameter("run", "path", "The name of the run.", {"type": "string", "minLength": 1})


def paths() -> Spec:
    """Return the paths of bulk runs."""
    return {
        "/v1/bulk": {
            "post": _operation(
                "submitRun",
                "Predict a table where it lies",
                "Workers read the input and write the output, below locations of their settings. With a name of "
                "yours the request may be repeated.",
                parameters=[PREFER],
                body=json_content(ref("Run"), {"one": {"model": "churn", "input": "in:a.csv", "output": "out:a"}}),
                answers={200: _run("The run has ended."), 202: _run("The run is accepted.")},
                problems=[*BODY_PROBLEMS, "unknown-model", "invalid-input", "run-conflict"],
            ),
            "get": _operation(
                "listRuns",
                "List your newest runs",
                "The newest first, of one model or of all.",
                parameters=[
                    parameter(
                        "limit", "query", "The most runs.", {"type": "integer", "minimum": 1, "maximum": 1000}
                    ),
                    parameter("model", "query", "The model of the runs.", {"type": "string"}),
                ],
                answers={200: answer("The runs.", {"type": "object"})},
                problems=["invalid-query"],
            ),
        },
        "/v1/bulk/{run}": {
            "get": _operation(
                "getRun",
                "Read a run, or wait for its end",
                "Its state, and the rows that are done.",
                parameters=[_RUN, PREFER],
                answers={200: _run("The run.")},
                problems=["unknown-run", "invalid-input"],
            ),
            "delete": _operation(
                "cancelRun",
                "Cancel a run",
                "Its finished parts stay.",
                parameters=[_RUN],
                answers={200: _run("The run is cancelled.")},
                problems=["unknown-run", "run-ended", "invalid-input"],
            ),
        },
        "/v1/bulk/{run}/resume": {
            "post": _operation(
                "resumeRun",
                "Continue a run",
                "It continues where it was cancelled or failed.",
                parameters=[_RUN, PREFER],
                answers={200: _run("The run had succeeded."), 202: _run("The run goes on.")},
                problems=["unknown-run", "invalid-input"],
            )
        },
        "/v1/bulk/{run}/failures": {
            "get": _operation(
                "getFailures",
                "See why rows of a run failed",
                "The reasons with their rows, and the chunks that failed as a whole.",
                parameters=[_RUN],
                answers={200: answer("The failures.", {"type": ["object", "array"]})},
                problems=["unknown-run", "invalid-input"],
            )
        },
    }


def run_schemas() -> Spec:
    """Return the component of a new run."""
    return {"Run": struct_schema(RunBody)}


def _operation(name: str, summary: str, description: str, *, problems: Sequence[str], **more: Any) -> Spec:
    return operation(name, summary, description, tag="bulk runs", problems=problems, **more)


def _run(description: str) -> Spec:
    return answer(description, {"type": "object"})
