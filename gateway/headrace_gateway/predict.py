"""`:predict`: submit a job and wait for its predictions, as KServe v1, TensorFlow Serving and Vertex AI do."""

from __future__ import annotations

from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from headrace.client.aio.job import AsyncJobHandle
from headrace.outcome import Outcome
from headrace_gateway.bodies import check_content_type, decode_body, read_body
from headrace_gateway.jobs import job_document, submit_and_wait
from headrace_gateway.keyed import key_of, refusing_reuse
from headrace_gateway.prefer import Preference, parse_prefer
from headrace_gateway.routing import Route
from headrace_gateway.settings import GatewaySettings
from headrace_gateway.state import authenticate, gateway_of


class Parameters(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """The options of a prediction, all of which may be left out."""

    #: A method of the model, such as `predict_proba`; its own default otherwise.
    method: str | None = None
    #: A version or an alias; the version that serves otherwise.
    version: str | None = None
    #: 0 (first) to 9 (last).
    priority: int = 0
    #: Seconds after which the job is not started any more.
    expires: float | None = None


class PredictBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of `:predict`: the instances, each in the form that the model's contract describes."""

    instances: list[Any]
    parameters: Parameters = Parameters()


#: The members of the body, by the path of the object that holds them.
FIELDS = {"": PredictBody.__struct_fields__, "parameters": Parameters.__struct_fields__}
_BODY = msgspec.json.Decoder(PredictBody)


async def predict(request: Request) -> Response:
    """Predict, and wait for the predictions.

    200 with `predictions`, one for each instance; 202 with the id of the job if the wait was over before
    (`Prefer: wait=N`, seconds). With an `Idempotency-Key` the call may be repeated: one key is one job.
    """
    gateway, caller = gateway_of(request), await authenticate(request)
    settings, preference = gateway.settings, parse_prefer(request.headers)
    body = decode_body(await read_json(request, settings), _BODY, FIELDS)
    model, key = model_of(request), key_of(request, caller)
    with refusing_reuse(key):
        handle, outcome = await submit_and_wait(
            gateway,
            caller,
            model,
            body.instances,
            seconds=preference.seconds(settings.gateway_wait, settings.gateway_wait_max),
            job=key,
            scope="predict",
            **msgspec.structs.asdict(body.parameters),
        )
    if outcome is None:
        return accepted(handle, model.partition("@")[0], preference, settings.gateway_wait_max)
    return answer_predictions(handle, outcome, preference, settings.gateway_wait_max)


def model_of(request: Request) -> str:
    """Return the model in the path of a request, with its version: `churn`, `churn@7`, `churn@canary`."""
    model: str = request.path_params["model"]
    version = request.path_params.get("version")
    return model if version is None else f"{model}@{version}"


async def read_json(request: Request, settings: GatewaySettings) -> bytes:
    """Return the body of a request that must be JSON. Raises a Problem."""
    check_content_type(request)
    return await read_body(request, limit=settings.max_job_bytes, seconds=settings.gateway_body_timeout)


def answer_predictions(
    handle: AsyncJobHandle, outcome: Outcome, preference: Preference, maximum: float
) -> Response:
    """Return the answer with the predictions of a job. Raises JobFailed, JobCancelled or JobExpired."""
    prediction = outcome.get()
    answer: dict[str, Any] = {
        "predictions": prediction.predictions,
        "model": prediction.model,
        "version": prediction.version,
        "id": handle.id,
    }
    if prediction.classes is not None:
        answer["classes"] = prediction.classes
    headers = {"Headrace-Job": handle.id}
    if (applied := preference.applied(maximum)) is not None and preference.wait is not None:
        headers["Preference-Applied"] = applied
    return Response(msgspec.json.encode(answer), headers=headers, media_type="application/json")


def accepted(
    handle: AsyncJobHandle, model: str | None, preference: Preference, maximum: float, *, status: int = 202
) -> Response:
    """Return the answer for a job without an outcome: its id, and where and when to look for it."""
    headers = {
        "Location": f"/v1/jobs/{handle.id}",
        "Retry-After": "1",
        "Headrace-Job": handle.id,
    }
    if (applied := preference.applied(maximum)) is not None:
        headers["Preference-Applied"] = applied
    document = job_document(handle.id, None, model=model)
    return Response(msgspec.json.encode(document), status, headers=headers, media_type="application/json")


#: `{model}` may be followed by a version: `churn@7`, `churn@canary`. TensorFlow Serving has it in the path.
routes = [
    Route("/v1/models/{model}:predict", predict, methods=["POST"]),
    Route("/v1/models/{model}/versions/{version}:predict", predict, methods=["POST"]),
]
