"""The models that a caller may use, and what each of them takes and gives."""

from __future__ import annotations

import msgspec
from starlette.convertors import StringConvertor, register_url_convertor
from starlette.requests import Request
from starlette.responses import Response

from headrace.clock import utc_now
from headrace_gateway.model_state import read_model
from headrace_gateway.predict import model_of
from headrace_gateway.routing import Route
from headrace_gateway.state import authenticate, gateway_of


async def greet(request: Request) -> Response:  # noqa: ARG001  # Starlette's
    """Return a sign of life, as clients of KServe v1 ask for it; it needs no key."""
    return Response(b'{"status":"alive"}', media_type="application/json")


async def list_models(request: Request) -> Response:
    """Return the names of the models with a contract that the caller may use: `{"models": ["churn"]}`."""
    gateway, caller = gateway_of(request), await authenticate(request)
    names = [name for name in await gateway.client.models() if not caller.models or name in caller.models]
    return Response(msgspec.json.encode({"models": names}), media_type="application/json")


async def get_model(request: Request) -> Response:
    """Return a model: contract, methods, versions, aliases, and the depth of its queue.

    `ready` is true if a worker has the version in memory. `churn@7` is a version, `churn` the one that serves.
    """
    gateway, caller = gateway_of(request), await authenticate(request)
    model = model_of(request)
    caller.check("predict", model.partition("@")[0])
    state = await gateway.run(read_model(gateway.keys, gateway.contracts, model, utc_now()))
    return Response(msgspec.json.encode(state.document()), media_type="application/json")


class _NameConvertor(StringConvertor):
    """A part of a path without a colon: `/v1/models/churn:predict` names no model `churn:predict`."""

    regex = "[^/:]+"


register_url_convertor("name", _NameConvertor())

routes = [
    Route("/", greet, methods=["GET"], include_in_schema=False),
    Route("/v1/models", list_models, methods=["GET"]),
    Route("/v1/models/{model:name}", get_model, methods=["GET"]),
    Route("/v1/models/{model}/versions/{version:name}", get_model, methods=["GET"]),
]
