"""The routes of Open Inference v2: health, metadata and predictions."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from headrace.catalog.contract import Contract
from headrace.clock import utc_now
from headrace.errors import HeadraceError
from headrace.submit.options import JobOptions
from headrace_gateway.callers import Caller
from headrace_gateway.endpoint_errors import Endpoint, answers_errors
from headrace_gateway.jobs import own_id
from headrace_gateway.keyed import key_of, refusing_reuse
from headrace_gateway.model_state import read_model, read_version
from headrace_gateway.open_inference.instances import make_instances
from headrace_gateway.open_inference.metadata import SERVER, describe_config, describe_model
from headrace_gateway.open_inference.outputs import AnsweredOutput, encode_answer, make_tensor
from headrace_gateway.open_inference.requests import (
    JSON_LENGTH_HEADER,
    RequestedOutput,
    decode_request,
)
from headrace_gateway.open_inference.tensors import malformed
from headrace_gateway.predict import model_of
from headrace_gateway.problems import Problem
from headrace_gateway.routing import Route
from headrace_gateway.state import authenticate, gateway_of
from headrace_gateway.synchronous import predict_now, read_whole


def _answer(document: Any, status: int = 200) -> Response:
    return Response(msgspec.json.encode(document), status, media_type="application/json")


async def read_server(request: Request) -> Response:  # noqa: ARG001  # an endpoint's argument
    """Say what the server is. Needs no key, as the health routes."""
    return _answer(SERVER)


async def read_live(request: Request) -> Response:  # noqa: ARG001  # as above
    """Say that the process answers."""
    return _answer({"live": True})


async def read_ready(request: Request) -> Response:
    """Say whether jobs can be submitted: Redis answers, and the process does not end."""
    gateway = gateway_of(request)
    try:
        await gateway.client.models()
    except HeadraceError:
        return _answer({"ready": False}, 503)
    ready = not gateway.is_ending.is_set()
    return _answer({"ready": ready}, 200 if ready else 503)


async def read_index(request: Request) -> Response:
    """List the models that the caller may use, as Triton's repository index does."""
    gateway, caller = gateway_of(request), await authenticate(request)
    names = [name for name in await gateway.client.models() if not caller.models or name in caller.models]
    contracts = [await gateway.client.contract(name) for name in names]
    return _answer(
        [
            {"name": contract.model, "version": contract.version, "state": "READY", "reason": ""}
            for contract in contracts
        ]
    )


async def describe(request: Request) -> Response:
    """Describe a model: its inputs and outputs."""
    gateway, model = gateway_of(request), model_of(request)
    (await authenticate(request)).check("predict", model.partition("@")[0])
    state = await gateway.run(read_model(gateway.keys, gateway.contracts, model, utc_now()))
    return _answer(describe_model(state.contract, state.versions))


async def read_model_ready(request: Request) -> Response:
    """Say whether a worker has a model in memory; 404 if it is not published."""
    gateway, model = gateway_of(request), model_of(request)
    (await authenticate(request)).check("predict", model.partition("@")[0])
    contract, is_loaded = await gateway.run(read_version(gateway.keys, gateway.contracts, model, utc_now()))
    ready = is_loaded is not False  # None: the statuses of workers are not to be read here
    return _answer({"name": contract.model, "ready": ready}, 200 if ready else 503)


async def read_config(request: Request) -> Response:
    """Describe a model as Triton's configuration does, which its tools ask for."""
    _, contract = await _find_contract(request)
    return _answer(describe_config(contract))


async def infer(request: Request) -> Response:
    """Predict: tensors in, a tensor out for each output that the request asks for."""
    caller, contract = await _find_contract(request)
    body = decode_request(
        await read_whole(request),
        request.headers.get(JSON_LENGTH_HEADER),
        max_values=gateway_of(request).settings.max_job_values,
    )
    instances = make_instances(contract, body.inputs)
    outputs = body.outputs or [RequestedOutput(contract.method, body.binary)]
    methods = [output.name for output in outputs]
    if len(set(methods)) < len(methods):
        raise malformed("`outputs` names an output twice")
    # All outputs are of one version. A single one goes by the aliases, perhaps to a canary.
    model = model_of(request) if len(methods) == 1 else f"{contract.model}@{contract.version}"
    options: JobOptions = {"priority": body.priority, "expires": body.expires}
    key = key_of(request, caller)
    with refusing_reuse(key):
        jobs = await asyncio.gather(
            *(
                predict_now(
                    gateway_of(request),
                    caller,
                    model,
                    instances,
                    job=key if key is None or len(methods) == 1 else own_id(caller, f"{key}.{method}"),
                    **(options | {"method": method}),
                )
                for method in methods
            )
        )
    prediction = jobs[0].prediction
    text, json_length = encode_answer(
        prediction.model,
        prediction.version,
        jobs[0].id if body.id is None else body.id,
        [
            AnsweredOutput(make_tensor(name, job.prediction.predictions), contract.methods.get(name), binary)
            for (name, binary), job in zip(outputs, jobs, strict=True)
        ],
    )
    headers = {"Headrace-Job": ",".join(job.id for job in jobs)}
    if json_length is None:
        return Response(text, headers=headers, media_type="application/json")
    headers[JSON_LENGTH_HEADER] = str(json_length)
    return Response(text, headers=headers, media_type="application/octet-stream")


async def _find_contract(request: Request) -> tuple[Caller, Contract]:
    """Return the caller and the contract of the version in the path. Raises a Problem, and UnknownModel."""
    caller, model = await authenticate(request), model_of(request)
    caller.check("predict", model.partition("@")[0])
    return caller, await gateway_of(request).client.contract(model)


def _respond(problem: Problem, request: Request) -> Response:
    """Return the answer to an error. Its type is not application/problem+json.

    KServe's SDK reads the member `error` of application/json only; its user would see the status alone.
    """
    # The pointers are into instances, which a request of tensors does not have.
    problem.errors.clear()
    response = problem.response(request.url.path)
    response.headers["content-type"] = "application/json"
    return response


def _route(path: str, endpoint: Endpoint, method: str = "GET") -> Route:
    return Route(path, answers_errors(endpoint, _respond), methods=[method])


def _model_routes(suffix: str, endpoint: Endpoint, method: str = "GET") -> list[Route]:
    """Return the routes of a model and of one of its versions. `{model}` may be `churn@7` or `churn@canary`."""
    return [
        _route(f"/v2/models/{{model}}{suffix}", endpoint, method),
        _route(f"/v2/models/{{model}}/versions/{{version}}{suffix}", endpoint, method),
    ]


routes = [
    _route("/v2", read_server),
    _route("/v2/health/live", read_live),
    _route("/v2/health/ready", read_ready),
    _route("/v2/repository/index", read_index, "POST"),
    *_model_routes("", describe),
    *_model_routes("/ready", read_model_ready),
    *_model_routes("/config", read_config),
    *_model_routes("/infer", infer, "POST"),
]
