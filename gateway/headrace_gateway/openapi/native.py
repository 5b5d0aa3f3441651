"""The operations of the native face: predictions, and jobs."""

from __future__ import annotations

from collections.abc import Sequence

from headrace.catalog.contract import Contract
from headrace_gateway.openapi.build import Spec, answer, component, json_content, operation, parameter, ref
from headrace_gateway.openapi.model_schemas import example_instance

#: The problems of every request with a body, of every new job, and of every outcome that is no success.
BODY_PROBLEMS = ("malformed-body", "body-timeout", "too-large", "unsupported-type", "unsupported-encoding")
SUBMIT_PROBLEMS = ("unknown-model", "invalid-input", "queue-full")
OUTCOME_PROBLEMS = ("cancelled", "model-failed", "model-timeout", "expired")

PREFER = parameter(
    "Prefer",
    "header",
    "How long to wait for the outcome, in seconds (RFC 7240). The gateway has an upper limit, and says in "
    "`Preference-Applied` how long it was. `respond-async` does not wait; anything else is ignored.",
    {"type": "string", "examples": ["wait=20", "respond-async"]},
)
IDEMPOTENCY_KEY = parameter(
    "Idempotency-Key",
    "header",
    "A text of your own, such as `order-4711`. The same key and body is the same job, however often you "
    "send it: repeat a request whose answer did not arrive.",
    {"type": "string", "minLength": 1, "maxLength": 255},
)
JOB = parameter(
    "job",
    "path",
    "The id of the job, or the name that you gave it. An id is 1 to 128 letters, digits and `-_.:`; another "
    "text of yours is hashed.",
    {"type": "string", "minLength": 1},
)

_TEXT: Spec = {"schema": {"type": "string"}}
_HEADERS: Spec = {
    "Headrace-Job": {"description": "The id of the job.", **_TEXT},
    "Location": {"description": "The path of the job.", **_TEXT},
    "Retry-After": {"description": "Seconds after which to ask again.", "schema": {"type": "integer"}},
    "Preference-Applied": {"description": "What was heeded of `Prefer`.", **_TEXT},
    "ETag": {"description": "The status of the job, for `If-None-Match`.", **_TEXT},
}
#: What to do next with a job, by the id in the answer.
LINKS: Spec = {
    name: {"operationId": name, "parameters": {"job": "$response.body#/id"}, "description": text}
    for name, text in (
        ("getJob", "Read the job, or wait for its outcome."),
        ("cancelJob", "Cancel the job."),
        ("getTimeline", "See the history of the job."),
    )
}


def headers(*names: str) -> Spec:
    """Return the headers of an answer by their names."""
    return {name: _HEADERS[name] for name in names}


def accepted(description: str = "The job is accepted, and has no outcome yet.") -> Spec:
    """Return the answer for a job without an outcome, which leads to the job."""
    names = headers("Location", "Retry-After", "Headrace-Job", "Preference-Applied")
    return answer(description, ref("Job"), headers=names, links=LINKS)


def outcome_answer(schema: Spec, description: str) -> Spec:
    """Return the answer for a job with an outcome."""
    return answer(description, schema, headers=headers("Headrace-Job", "Preference-Applied"), links=LINKS)


def model_paths(contract: Contract, target: str) -> Spec:
    """Return the paths of a model. `target` is the model as they name it: `churn`, `churn@7`."""
    is_version = "@" in target
    paths: Spec = {
        f"/v1/models/{target}:predict": {"post": _predict(contract, target, f"predict_{target}", is_version)},
        f"/v1/models/{target}/jobs": {"post": _submit(contract, target)},
    }
    if not is_version:
        path = f"/v1/models/{target}/versions/{contract.version}:predict"
        paths[path] = {"post": _predict(contract, target, f"predict_version_{target}", True)}
    return paths


def job_paths(contracts: Sequence[Contract]) -> Spec:
    """Return the paths of jobs. A job that is put names one of the models of these contracts."""
    job: Spec = {
        "get": _get_job(),
        "delete": _delete_job(),
    }
    if contracts:
        job["put"] = _put_job(contracts)
    return {"/v1/jobs/{job}": job, "/v1/jobs/{job}/timeline": {"get": _get_timeline()}}


def _predict(contract: Contract, target: str, name: str, is_version: bool) -> Spec:
    schema = component(contract)
    request = f"{schema}.VersionRequest" if is_version else f"{schema}.Request"
    return operation(
        name,
        f"Predict with {target}",
        "Waits for the predictions. If they take longer than the request waits, the answer is 202 with the id of "
        "the job, which goes on. The body is that of KServe v1, TensorFlow Serving and Vertex AI.",
        tag=target,
        parameters=[PREFER, IDEMPOTENCY_KEY],
        body=json_content(ref(request), _examples(contract)),
        answers={
            200: outcome_answer(ref(f"{schema}.Predictions"), "The predictions, in the order of the instances."),
            202: accepted(),
        },
        problems=[*BODY_PROBLEMS, *SUBMIT_PROBLEMS, "invalid-id", "idempotency-key-reused", *OUTCOME_PROBLEMS],
    )


def _submit(contract: Contract, target: str) -> Spec:
    schema = component(contract)
    return operation(
        f"submit_{target}",
        f"Submit a job to {target}",
        "Answers as soon as the job is stored, with the path of the job. It waits for the outcome only if the "
        "request prefers it.",
        tag=target,
        parameters=[PREFER, IDEMPOTENCY_KEY],
        body=json_content(ref(f"{schema}.JobRequest"), _examples(contract)),
        answers={200: outcome_answer(ref("Job"), "The job has its outcome."), 202: accepted()},
        problems=[*BODY_PROBLEMS, *SUBMIT_PROBLEMS, "invalid-id", "idempotency-key-reused", "not-durable"],
    )


def _put_job(contracts: Sequence[Contract]) -> Spec:
    schemas = [ref(f"{component(contract)}.NamedJobRequest") for contract in contracts]
    examples = {
        contract.model: {"model": contract.model, "instances": [example]}
        for contract in contracts
        if (example := example_instance(contract)) is not None
    }
    return operation(
        "putJob",
        "Submit a job under an id of yours",
        "The same id and body is the same job, however often you send it. An id of yours is stored with your name "
        "in front, so it never meets that of another caller. The answer shows the stored id; both find the job.",
        tag="jobs",
        parameters=[JOB, PREFER],
        body=json_content(schemas[0] if len(schemas) == 1 else {"anyOf": schemas}, examples),
        answers={
            200: outcome_answer(ref("Job"), "The job was known, and has its outcome."),
            201: accepted("The job is new."),
            202: accepted("The job was known, and has no outcome yet."),
        },
        problems=[*BODY_PROBLEMS, *SUBMIT_PROBLEMS, "job-conflict", "not-durable"],
    )


def _get_job() -> Spec:
    return operation(
        "getJob",
        "Read a job, or wait for its outcome",
        "The status of the job, and its predictions or its failure. `Prefer: wait=20` waits for the outcome. The "
        "`ETag` is the status: a poll with `If-None-Match` is 304 while nothing has changed.",
        tag="jobs",
        parameters=[
            JOB,
            PREFER,
            parameter("If-None-Match", "header", "The ETag of an earlier answer.", {"type": "string"}),
        ],
        answers={
            200: answer(
                "The job.",
                ref("Job"),
                headers=headers("ETag", "Headrace-Job", "Retry-After", "Preference-Applied"),
            ),
            304: answer("Nothing has changed.", headers=headers("ETag")),
        },
        problems=["unknown-job"],
    )


def _delete_job() -> Spec:
    return operation(
        "cancelJob",
        "Cancel a job",
        "A job that runs is not interrupted, but its predictions are discarded. Repeat the request at will.",
        tag="jobs",
        parameters=[JOB],
        answers={
            200: answer("The job is cancelled.", ref("Job"), headers=headers("ETag", "Headrace-Job")),
            202: answer(
                "The workers are asked to cancel the job, and none has answered yet; it does not run then.",
                ref("Job"),
                headers=headers("Location", "Retry-After", "Headrace-Job"),
            ),
        },
        problems=["unknown-job", "already-ended"],
    )


def _get_timeline() -> Spec:
    return operation(
        "getTimeline",
        "See the history of a job",
        "When the job was submitted, claimed, predicted and retried, by which worker, or where it waits.",
        tag="jobs",
        parameters=[JOB],
        answers={200: answer("The history.", ref("Timeline"), headers=headers("Headrace-Job"))},
        problems=["unknown-job"],
    )


def _examples(contract: Contract) -> Spec | None:
    example = example_instance(contract)
    if example is None:
        return None
    return {"one": {"instances": [example]}, "two": {"instances": [example, example]}}
