"""`GET /openapi.json` and `GET /v1/models/{model}/openapi.json`: the document as the caller may use it."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import Iterable
from typing import Any, NamedTuple

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from headrace.catalog.contract import Contract
from headrace.errors import StoredDataError, UnknownModel
from headrace_gateway.callers import Caller
from headrace_gateway.openapi.document import gateway_document, model_document
from headrace_gateway.routing import Route
from headrace_gateway.state import Gateway, authenticate, gateway_of

log = logging.getLogger("headrace.gateway")

#: Contracts that are read at once.
_READS = 16
#: Most documents that are kept: one for each set of models that a caller may use.
_MAX_DOCUMENTS = 64


class Document(NamedTuple):
    """A document as it is sent, the contracts that it was made of, and the moment of reading them."""

    body: bytes
    etag: str
    contracts: list[Contract]
    read_at: float


async def describe_gateway(request: Request) -> Response:
    """Answer with the document of all routes and of the models that the caller may use."""
    gateway, caller = gateway_of(request), await authenticate(request)
    documents = _documents_of(request)
    document = documents.get(caller.models)
    if document is None or time.monotonic() - document.read_at >= gateway.settings.contract_ttl:
        contracts = await _read_contracts(gateway, caller)
        document = _renew(document, contracts, _server(request), gateway.settings.gateway_open)
        if len(documents) >= _MAX_DOCUMENTS:
            documents.clear()
        documents[caller.models] = document
    return _answer(request, document.body, document.etag, gateway.settings.contract_ttl)


async def describe_model(request: Request) -> Response:
    """Answer with the document of a model: of the version that serves, or that the path names."""
    gateway, caller = gateway_of(request), await authenticate(request)
    target: str = request.path_params["model"]
    caller.check("predict", target.partition("@")[0])
    contract = await gateway.client.contract(target)
    body = msgspec.json.encode(
        model_document(contract, target, server=_server(request), is_open=gateway.settings.gateway_open)
    )
    return _answer(request, body, _etag(body), gateway.settings.contract_ttl)


async def _read_contracts(gateway: Gateway, caller: Caller) -> list[Contract]:
    """Read the contracts of the versions that serve, of the models that a caller may use, sorted by name."""
    names = [name for name in await gateway.client.models() if not caller.models or name in caller.models]
    slots = asyncio.Semaphore(_READS)

    async def read(name: str) -> Contract | None:
        async with slots:
            try:
                return await gateway.client.contract(name)
            except UnknownModel:  # it is gone since its name was read
                return None
            except StoredDataError as error:
                log.warning("the document leaves out %s: %s", name, error)
                return None

    contracts: Iterable[Contract | None] = await asyncio.gather(*map(read, names))
    return [contract for contract in contracts if contract is not None]


def _renew(document: Document | None, contracts: list[Contract], server: str, is_open: bool) -> Document:
    """Return the document of these contracts: the present one, if they are the same."""
    if document is not None and msgspec.json.encode(document.contracts) == msgspec.json.encode(contracts):
        return document._replace(read_at=time.monotonic())
    body = msgspec.json.encode(gateway_document(contracts, server=server, is_open=is_open))
    return Document(body, _etag(body), contracts, time.monotonic())


def _documents_of(request: Request) -> dict[frozenset[str], Document]:
    state: Any = request.app.state
    if not hasattr(state, "documents"):
        state.documents = {}
    documents: dict[frozenset[str], Document] = state.documents
    return documents


def _server(request: Request) -> str:
    """Return the path at which the API begins, which a proxy may have set."""
    return str(request.scope.get("root_path") or "/")


def _etag(body: bytes) -> str:
    return f'"{hashlib.sha256(body).hexdigest()[:32]}"'


def _answer(request: Request, body: bytes, etag: str, seconds: float) -> Response:
    headers = {"ETag": etag, "Cache-Control": f"private, max-age={seconds:.0f}", "Vary": "Authorization"}
    if etag in [tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")]:
        return Response(status_code=304, headers=headers)
    return Response(body, headers=headers, media_type="application/json")


routes = [
    Route("/openapi.json", describe_gateway),
    Route("/v1/models/{model}/openapi.json", describe_model),
]
