"""The ASGI app: the routes of all faces, and what they share."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from prometheus_client import REGISTRY, CollectorRegistry
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

from headrace import AsyncClient
from headrace_gateway import batch, bulk, events, invocations, job_routes, model_routes, predict
from headrace_gateway.callers import Callers, check_open
from headrace_gateway.error_answers import ErrorAnswers
from headrace_gateway.frame import Frame
from headrace_gateway.limits import LimitsMiddleware
from headrace_gateway.metrics import RequestMetrics
from headrace_gateway.open_inference import routes as open_inference
from headrace_gateway.openapi import routes as openapi
from headrace_gateway.pages import routes as pages
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


class GatewayApp(Starlette):
    """Starlette without its stack: errors are answered in one place, where it wraps each request three times."""

    def build_middleware_stack(self) -> ASGIApp:
        """Return the app: the middleware, the answers to errors, the router."""
        app: ASGIApp = ErrorAnswers(self.router, self.routes)
        for cls, args, kwargs in reversed(self.user_middleware):
            app = cls(app, *args, **kwargs)
        return app


def create_app(
    settings: GatewaySettings, callers: Callers | None = None, *, registry: CollectorRegistry = REGISTRY
) -> Starlette:
    """Return the app. It connects to Redis with the first request. `registry` takes its metrics.

    Raises SettingError.
    """
    check_open(settings)
    client = AsyncClient(settings=settings)  # here, where the caller gets the error

    @contextlib.asynccontextmanager
    async def share(app: Starlette) -> AsyncIterator[None]:
        async with client:
            app.state.gateway = gateway = Gateway(settings, client, callers)
            watching = asyncio.create_task(gateway.waits.watch_callers())
            try:
                yield
            finally:
                watching.cancel()

    def shared_gateway() -> Gateway:
        shared: Gateway = app.state.gateway
        return shared

    app = GatewayApp(
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
                gateway=shared_gateway,
                metrics=RequestMetrics(registry),
                request_log=RequestLog() if settings.gateway_log_requests else None,
            ),
            *_cors(settings.origins),
            Middleware(LimitsMiddleware),
        ],
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
