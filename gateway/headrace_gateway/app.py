"""The ASGI app: the routes of all faces, what they share, and errors."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from prometheus_client import REGISTRY, CollectorRegistry
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Match, Route

from headrace import AsyncClient
from headrace.errors import HeadraceError
from headrace_gateway import batch, bulk, events, invocations, job_routes, model_routes, predict
from headrace_gateway.callers import Callers, check_open
from headrace_gateway.frame import Frame
from headrace_gateway.limits import LimitsMiddleware
from headrace_gateway.metrics import RequestMetrics
from headrace_gateway.open_inference import routes as open_inference
from headrace_gateway.openapi import routes as openapi
from headrace_gateway.pages import routes as pages
from headrace_gateway.problems import Problem, problem_of
from headrace_gateway.request_log import RequestLog
from headrace_gateway.settings import GatewaySettings
from headrace_gateway.state import Gateway

#: Headers that a page of another origin may send, and those that it may read.
_CORS_SENT = (
    "Authorization",
    "Content-Type",
    "Idempotency-Key",
    "If-None-Match",
    "Inference-Header-Content-Length",
    "Last-Event-ID",
    "Prefer",
)
_CORS_READ = (
    "ETag",
    "Headrace-Job",
    "Inference-Header-Content-Length",
    "Location",
    "Preference-Applied",
    "RateLimit",
    "RateLimit-Policy",
    "Retry-After",
)


def create_app(
    settings: GatewaySettings, callers: Callers | None = None, *, registry: CollectorRegistry = REGISTRY
) -> Starlette:
    """Return the app. It connects to Redis with the first request. `registry` takes its metrics.

    Raises SettingError.
    """
    check_open(settings)

    @contextlib.asynccontextmanager
    async def share(app: Starlette) -> AsyncIterator[None]:
        async with AsyncClient(settings=settings) as client:
            app.state.gateway = Gateway(settings, client, callers)
            yield

    def gateway() -> Gateway:
        shared: Gateway = app.state.gateway
        return shared

    app = Starlette(
        routes=[
            *predict.routes,
            *job_routes.routes,
            *model_routes.routes,
            *open_inference.routes,
            *invocations.routes,
            *openapi.routes,
            *pages.routes,
            *events.routes,
            *batch.routes,
            *bulk.routes,
        ],
        lifespan=share,
        middleware=[
            Middleware(
                Frame,
                gateway=gateway,
                metrics=RequestMetrics(registry),
                request_log=RequestLog() if settings.gateway_log_requests else None,
            ),
            *_cors(settings.origins),
            Middleware(LimitsMiddleware),
        ],
        exception_handlers={
            Problem: _answer_problem,
            HeadraceError: _answer_error,
            HTTPException: _answer_http_error,
        },
    )
    return app


def _cors(origins: list[str]) -> list[Middleware]:
    if not origins:
        return []
    return [
        Middleware(
            CORSMiddleware,
            allow_origins=origins,
            allow_methods=["GET", "POST", "PUT", "DELETE"],
            allow_headers=_CORS_SENT,
            expose_headers=_CORS_READ,
            max_age=600,
        )
    ]


def _answer_problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, Problem)  # noqa: S101  # Starlette calls it for no other
    return error.response(request.url.path)


def _answer_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HeadraceError)  # noqa: S101  # as above
    return problem_of(error).response(request.url.path)


def _answer_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101  # as above
    return _problem_of_http(request, error).response(request.url.path)


def _problem_of_http(request: Request, error: HTTPException) -> Problem:
    """Return the problem of a path that no route has, or of a method that no route of the path has."""
    if error.status_code == 404:
        return Problem(404, "not-found", "there is nothing at this path; `/openapi.json` lists the paths")
    if error.status_code == 405:
        methods = _methods_of(request)
        detail = f"this path has no such method; it has {', '.join(methods)}"
        return Problem(405, "method-not-allowed", detail, headers={"Allow": ", ".join(methods)})
    return Problem(error.status_code, "http", error.detail, headers=error.headers)


def _methods_of(request: Request) -> list[str]:
    """Return the methods of all routes of the request's path."""
    routes: list[BaseRoute] = request.app.routes
    return sorted(
        {
            method
            for route in routes
            if isinstance(route, Route) and route.matches(request.scope)[0] is not Match.NONE
            for method in route.methods or ()
        }
    )
