"""The types of problems: the name of each, its statuses, its title, its meaning, and what a caller does about it.

`/docs/problems` shows them, and the OpenAPI document has an example of each.
"""

from __future__ import annotations

from typing import NamedTuple

#: The path of a problem type. A reference without a host is the same for every gateway, and leads to its own page.
TYPES = "/docs/problems/"


class ProblemType(NamedTuple):
    """A kind of error. `title`, `meaning` and `action` are for people."""

    kind: str
    statuses: tuple[int, ...]
    title: str
    meaning: str
    action: str


def _type(kind: str, statuses: int | tuple[int, ...], title: str, meaning: str, action: str) -> ProblemType:
    return ProblemType(kind, (statuses,) if isinstance(statuses, int) else statuses, title, meaning, action)


_ALL = (
    # The request.
    _type(
        "malformed-body",
        400,
        "The body is not as it should be",
        "The body is no JSON, or it has a member that this endpoint does not know or of a type it does not take.",
        "Compare the body with the example of the endpoint; the detail names the member.",
    ),
    _type(
        "invalid-id",
        400,
        "No job can have this id",
        "An id is 1 to 128 letters, digits and `-_.:`, and begins with a letter or a digit.",
        "Use another id, such as the number of your order or a UUID.",
    ),
    _type(
        "invalid-query",
        400,
        "The query cannot be read",
        "A parameter in the query of the address is missing, unknown or of a form that it cannot have.",
        "The detail names the parameter, and the form it has.",
    ),
    _type(
        "unauthorized",
        401,
        "A key is needed",
        "The request has no API key, or one that is not known or was revoked.",
        "Send `Authorization: Bearer hr_...`; the operator makes keys with `headrace keys add`.",
    ),
    _type(
        "forbidden",
        403,
        "This key may not do this",
        "The key is valid, but not for this model or this kind of request.",
        "Ask the operator for a key that may.",
    ),
    _type(
        "not-found",
        404,
        "There is nothing at this path",
        "The path is not one of the API.",
        "Look at the paths in `/docs`.",
    ),
    _type(
        "unknown-model",
        404,
        "There is no such model",
        "No worker has published this model, or it has no such version or alias.",
        "Look at the names in `/docs`; the detail suggests a similar one.",
    ),
    _type(
        "unknown-job",
        404,
        "There is no such job",
        "No job with this id is known, or it is another caller's, or its outcome is no longer stored.",
        "Look at the id; submit the job again if its outcome is gone.",
    ),
    _type(
        "unknown-run",
        404,
        "There is no such bulk run",
        "No bulk run has this name, or it is another caller's.",
        "Look at the name of the run.",
    ),
    _type(
        "method-not-allowed",
        405,
        "The path has no such method",
        "The path is right, but it does not take this HTTP method.",
        "Use a method that the header `Allow` names.",
    ),
    _type(
        "body-timeout",
        408,
        "The body did not arrive in time",
        "The gateway waited for the rest of the body, and it did not come.",
        "Repeat the request, and send its body at once.",
    ),
    _type(
        "too-large",
        413,
        "The body is too large",
        "The body is larger than the gateway takes.",
        "Send fewer instances in a request, or a file to `:batch`.",
    ),
    _type(
        "unsupported-type",
        415,
        "The body has another type",
        "The endpoint does not read bodies of this Content-Type.",
        "Send `Content-Type: application/json`, or what the detail names.",
    ),
    _type(
        "unsupported-encoding",
        415,
        "The body is packed in an unknown way",
        "The body has a Content-Encoding that the gateway cannot unpack.",
        "Send it plain, or as gzip or deflate.",
    ),
    _type(
        "invalid-input",
        422,
        "The input does not fit the model's contract",
        "An instance does not fit the contract of the model, or an option has a value that it cannot have.",
        "Correct what `errors` and `detail` name; the same request fails again.",
    ),
    _type(
        "too-many-rows",
        422,
        "The job has too many instances",
        "Your key allows fewer instances in a job.",
        "Send them in several jobs, or as a file to `:batch`.",
    ),
    _type(
        "unknown-endpoint",
        422,
        "There is no such endpoint",
        "`notify` names an endpoint that this installation does not have.",
        "Use a name that the operator gave you; a URL is refused.",
    ),
    # The job.
    _type(
        "job-conflict",
        409,
        "The id belongs to another job",
        "A job with this id has another model, other instances or other options.",
        "Use a new id for a new job; the same id is for a repeat of the same request.",
    ),
    _type(
        "idempotency-key-reused",
        422,
        "The Idempotency-Key belongs to another job",
        "You sent this Idempotency-Key before, with another input.",
        "Use a new key for a new job; the same key is for a repeat of the same request.",
    ),
    _type(
        "run-conflict",
        409,
        "The name belongs to another bulk run",
        "A bulk run with this name has another model, input, output or other options.",
        "Use a new name for a new run; the same name is for a repeat of the same request.",
    ),
    _type(
        "run-ended",
        409,
        "The bulk run has ended",
        "The run cannot be cancelled, as it has succeeded or failed.",
        "Read its state with `GET /v1/bulk/{run}`.",
    ),
    _type(
        "already-ended",
        409,
        "The job has another outcome",
        "The job cannot be cancelled, as it has already succeeded, failed or expired.",
        "Read its outcome with `GET /v1/jobs/{id}`.",
    ),
    _type(
        "cancelled",
        409,
        "The job was cancelled",
        "Somebody cancelled the job before it had an outcome.",
        "Submit it again under another id if you still want the predictions.",
    ),
    _type(
        "expired",
        504,
        "The job was not started before its deadline",
        "No worker could start the job within its `expires`.",
        "Submit it again with more time, or at a quieter moment.",
    ),
    _type(
        "model-failed",
        500,
        "The model failed",
        "The model raised an error, its process died, or the job used up its attempts.",
        "Tell the job's id to the owner of the model; the job is kept as a dead letter.",
    ),
    _type(
        "model-timeout",
        504,
        "The model took too long",
        "The job reached the time limit of the model.",
        "Send fewer instances in a job, or ask the owner of the model for a higher limit.",
    ),
    _type(
        "wait-over",
        504,
        "The predictions did not arrive in time",
        "The request of a client that knows no 202 waited as long as it may; the job goes on.",
        "Read the job at `Location`, or wait for it there with `Prefer: wait=20`.",
    ),
    # Bulk runs.
    # The moment.
    _type(
        "rate-limited",
        429,
        "Too many requests",
        "Your key has used up what it may send at the moment.",
        "Repeat the request after `Retry-After` seconds.",
    ),
    _type(
        "too-many-waiting",
        503,
        "Too many of your requests are under way",
        "Your key may have only so many requests under way at once in a process of the gateway.",
        "Wait for one of them, or submit jobs and read their outcomes later.",
    ),
    _type(
        "queue-full",
        503,
        "The queue of the model is full",
        "As many jobs wait as the operator allows; this one was not accepted.",
        "Repeat the request after `Retry-After` seconds.",
    ),
    _type(
        "too-many-batches",
        503,
        "Too many files at once",
        "This process of the gateway predicts as many files as it does at a time.",
        "Send the file again after `Retry-After` seconds.",
    ),
    _type(
        "broker-unavailable",
        503,
        "Redis cannot be reached",
        "Redis did not answer in time, so it is not certain whether a job was accepted.",
        "Repeat the request after `Retry-After` seconds, under the id that it names: one id is one job.",
    ),
    _type(
        "not-durable",
        503,
        "Redis did not confirm that the job is durable",
        "Redis cannot confirm that the job outlives a restart; the detail says whether it was accepted.",
        "Repeat the request under the same id, or leave `durable` out.",
    ),
    _type(
        "shutting-down",
        503,
        "The gateway is shutting down",
        "This process ends; another one answers.",
        "Repeat the request at once, on a new connection.",
    ),
    _type(
        "no-room",
        507,
        "The gateway has no room for the file",
        "The disk of the gateway is full, so a file that was sent to `:batch` cannot be kept.",
        "Repeat the request later, or send the file in pieces.",
    ),
    _type(
        "http",
        (400, 404, 405),
        "The request cannot be served",
        "The HTTP server refused the request before an endpoint saw it.",
        "The detail says why.",
    ),
    _type(
        "internal",
        500,
        "The gateway failed",
        "The gateway has a fault, and its log has the cause.",
        "Repeat the request once; tell the operator if it fails again.",
    ),
)

#: The types of problems by name.
PROBLEM_TYPES = {problem.kind: problem for problem in _ALL}


def title_of(kind: str) -> str | None:
    """Return the title of a type of problem; None if there is none of this name."""
    problem = PROBLEM_TYPES.get(kind)
    return None if problem is None else problem.title
