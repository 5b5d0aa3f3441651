"""The face of MLflow's scoring server and of SageMaker's containers: `/invocations` and `/ping`."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from headrace.catalog.contract import Contract
from headrace_gateway.callers import Caller
from headrace_gateway.endpoint_errors import Endpoint, answers_errors
from headrace_gateway.invocation_forms import InvocationParams, decode_invocation
from headrace_gateway.keyed import key_of, refusing_reuse
from headrace_gateway.problems import Problem
from headrace_gateway.routing import Route
from headrace_gateway.state import authenticate, gateway_of
from headrace_gateway.synchronous import predict_now, read_whole
from headrace_gateway.tables import read_csv

#: MLflow's codes of an error, by status.
_CODES = {
    400: "BAD_REQUEST",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "RESOURCE_DOES_NOT_EXIST",
    409: "RESOURCE_CONFLICT",
    422: "INVALID_PARAMETER_VALUE",
    429: "REQUEST_LIMIT_EXCEEDED",
    503: "TEMPORARILY_UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
_JSON, _CSV = "application/json", "text/csv"


async def invoke(request: Request) -> Response:
    """Predict a table, given in one of MLflow's forms or as CSV."""
    caller = await authenticate(request)
    name = request.path_params.get("model") or await _find_only_model(request, caller)
    kind, options = _read_content_type(request)
    body = await read_whole(request)
    if kind == _CSV:
        params = InvocationParams()
        contract = await _find_contract(request, caller, name)
        instances = read_csv(contract, body, header=options.get("header") != "absent")
    else:
        invocation = decode_invocation(body)
        params = invocation.params
        contract = await _find_contract(request, caller, name, params.version)
        instances = invocation.make_instances(contract)
    key = key_of(request, caller)
    with refusing_reuse(key):
        job = await predict_now(
            gateway_of(request), caller, name, instances, job=key, **msgspec.structs.asdict(params)
        )
    predictions, headers = job.prediction.predictions, {"Headrace-Job": job.id}
    if request.headers.get("accept", "").partition(";")[0].strip().lower() == _CSV:
        return Response(_write_csv(predictions), headers=headers, media_type=_CSV)
    return Response(msgspec.json.encode({"predictions": predictions}), headers=headers, media_type=_JSON)


async def ping(request: Request) -> Response:
    """Answer 200 if the model is published. Without a model in the path, if Redis answers; that needs no key."""
    if (name := request.path_params.get("model")) is not None:
        await _find_contract(request, await authenticate(request), name)
    else:
        await gateway_of(request).client.models()
    return Response(b"\n", media_type=_JSON)


async def _find_only_model(request: Request, caller: Caller) -> str:
    """Return the model of `/invocations`: that of the setting, or else the only one that the caller may use."""
    gateway = gateway_of(request)
    if gateway.settings.gateway_model:
        return gateway.settings.gateway_model
    names = [name for name in await gateway.client.models() if not caller.models or name in caller.models]
    if len(names) == 1:
        return names[0]
    raise Problem(
        404,
        "unknown-model",
        f"/invocations is for a gateway of one model, and {len(names)} are published; send the request to "
        "/models/NAME/invocations, or set HEADRACE_GATEWAY_MODEL",
    )


async def _find_contract(request: Request, caller: Caller, name: str, version: str | None = None) -> Contract:
    caller.check("predict", name.partition("@")[0])
    return await gateway_of(request).client.contract(name, version)


def _read_content_type(request: Request) -> tuple[str, dict[str, str]]:
    """Return the type of the body, JSON or CSV, and its parameters. Raises a Problem (415) for others."""
    kind, *pairs = request.headers.get("content-type", _JSON).lower().split(";")
    options = {key.strip(): value.strip().strip('"') for key, _, value in (pair.partition("=") for pair in pairs)}
    if kind.strip() not in {_JSON, _CSV} or options.get("charset", "utf-8") not in {"utf-8", "utf8"}:
        raise Problem(
            415,
            "unsupported-type",
            f"the body must be {_JSON} or {_CSV}, in UTF-8, as its Content-Type says",
            headers={"Accept": f"{_JSON}, {_CSV}"},
        )
    return kind.strip(), options


def _write_csv(predictions: Sequence[Any]) -> str:
    """Return a line for each prediction, without a header, as SageMaker's own containers answer."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows(prediction if isinstance(prediction, list) else [prediction] for prediction in predictions)
    return text.getvalue()


def _respond(problem: Problem, request: Request) -> Response:
    # The pointers are into instances, which only one of the forms has.
    problem.errors.clear()
    problem.more |= {
        "error_code": _CODES.get(problem.status, "BAD_REQUEST" if problem.status < 500 else "INTERNAL_ERROR"),
        "message": problem.detail,
    }
    return problem.response(request.url.path)


def _route(path: str, endpoint: Endpoint, method: str) -> Route:
    return Route(path, answers_errors(endpoint, _respond), methods=[method])


routes = [
    _route("/models/{model}/invocations", invoke, "POST"),
    _route("/models/{model}/ping", ping, "GET"),
    _route("/invocations", invoke, "POST"),
    _route("/ping", ping, "GET"),
]
