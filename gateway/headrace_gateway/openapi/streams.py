"""The operations that stream: files in and out, and events of jobs."""

from __future__ import annotations

from typing import Any

from headrace.catalog.contract import Contract
from headrace_gateway.openapi.build import Spec, operation, parameter
from headrace_gateway.openapi.native import JOB

_CHARACTER: Spec = {"type": "string", "minLength": 1, "maxLength": 1, "examples": [";"]}
_TEXT: Spec = {"type": "string"}
_EVENTS: Spec = {
    "description": "Events with the status of a job, and as data the job.",
    "content": {"text/event-stream": {"schema": _TEXT}},
}
_NO_EVENTS: Spec = {"description": "The client has every outcome, and need not connect again."}
_LAST_EVENT_ID = parameter("Last-Event-ID", "header", "The id of the last event that the client has.", _TEXT)


def model_paths(contract: Contract, target: str) -> Spec:
    """Return the path of `:batch` of a model, named `target` in it."""
    # `curl -T` sends a file with PUT.
    return {
        f"/v1/models/{target}:batch": {
            "post": _batch(contract, target, f"batch_{target}"),
            "put": _batch(contract, target, f"put_batch_{target}"),
        }
    }


def event_paths() -> Spec:
    """Return the paths of events."""
    return {
        "/v1/jobs/{job}/events": {
            "get": operation(
                "streamJob",
                "Stream the status of a job",
                "Server-sent events: one for each change of the status, the last with the outcome.",
                tag="jobs",
                parameters=[JOB, _LAST_EVENT_ID],
                answers={200: _EVENTS, 204: _NO_EVENTS},
                problems=["unknown-job"],
            )
        },
        "/v1/events": {
            "get": operation(
                "streamJobs",
                "Stream the outcomes of many jobs",
                "Server-sent events: one for each job that ends.",
                tag="jobs",
                parameters=[
                    parameter(
                        "job",
                        "query",
                        "The id of a job; up to 1,000 of them.",
                        {"type": "array", "items": _TEXT, "minItems": 1, "maxItems": 1000},
                        required=True,
                    ),
                    _LAST_EVENT_ID,
                ],
                answers={200: _EVENTS, 204: _NO_EVENTS},
                problems=["invalid-query", "unknown-job"],
            )
        },
    }


def _batch(contract: Contract, target: str, name: str) -> Spec:
    content: dict[str, Any] = {"text/csv": {"schema": _TEXT}, "application/x-ndjson": {"schema": _TEXT}}
    answer = {
        "description": "The rows with their predictions, in their order. A row that failed has its error.",
        "headers": {"Headrace-Model": {"description": "The version that predicts.", "schema": _TEXT}},
        "content": content,
    }
    query = [
        parameter("method", "query", "A method of the model.", {"enum": list(contract.methods)}),
        parameter(
            "delimiter", "query", "The character between the fields of CSV.", {"type": "string", "maxLength": 1}
        ),
        parameter(
            "column", "query", "A column of the file that the answer has too.", {"type": "array", "items": _TEXT}
        ),
    ]
    if "@" not in target:
        query.append(parameter("version", "query", "A version or an alias.", _TEXT))
    return operation(
        name,
        f"Predict a file with {target}",
        "CSV with a header, or a JSON object a line. The answer is of the same type. Its rows come as they are "
        "predicted, so it may break off: the last line of NDJSON counts the rows.",
        tag=target,
        parameters=query,
        body=content,
        answers={200: answer},
        problems=[
            "malformed-body",
            "invalid-query",
            "body-timeout",
            "too-large",
            "unsupported-type",
            "unsupported-encoding",
            "unknown-model",
            "invalid-input",
            "queue-full",
            "shutting-down",
            "no-room",
            "too-many-batches",
        ],
    )
