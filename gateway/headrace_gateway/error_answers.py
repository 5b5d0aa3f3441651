"""The answers to errors that a route raises, and to requests that no route takes."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute, Match, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from headrace.errors import HeadraceError
from headrace_gateway.problems import Problem, problem_of


class ErrorAnswers:
    """An ASGI app around the router `app` of these routes. It answers the errors that it knows as problem+json."""

    def __init__(self, app: ASGIApp, routes: Sequence[BaseRoute]) -> None:
        self._app, self._routes = app, routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        try:
            await self._app(scope, receive, send)
        except (Problem, HeadraceError, HTTPException) as error:
            await self._find_problem(scope, error).response(scope["path"])(scope, receive, send)

    def _find_problem(self, scope: Scope, error: Problem | HeadraceError | HTTPException) -> Problem:
        if isinstance(error, Problem):
            return error
        if isinstance(error, HeadraceError):
            return problem_of(error)
        if error.status_code == 404:
            return Problem(404, "not-found", "there is nothing at this path; `/openapi.json` lists the paths")
        if error.status_code == 405:
            methods = self._find_methods(scope)
            detail = f"this path has no such method; it has {', '.join(methods)}"
            return Problem(405, "method-not-allowed", detail, headers={"Allow": ", ".join(methods)})
        return Problem(error.status_code, "http", error.detail, headers=error.headers)

    def _find_methods(self, scope: Scope) -> list[str]:
        """Return the methods of all routes of the request's path."""
        return sorted(
            {
                method
                for route in self._routes
                if isinstance(route, Route) and route.matches(scope)[0] is not Match.NONE
                for method in route.methods or ()
            }
        )
