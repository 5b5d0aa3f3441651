"""Errors of endpoints in the form that the clients of a protocol read. The members are those of every problem."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import Response

from headrace.errors import HeadraceError
from headrace_gateway.problems import Problem, problem_of

Endpoint = Callable[[Request], Awaitable[Response]]


def answers_errors(endpoint: Endpoint, respond: Callable[[Problem, Request], Response]) -> Endpoint:
    """Return the endpoint with `respond` answering its Problems and HeadraceErrors."""

    async def answer(request: Request) -> Response:
        try:
            return await endpoint(request)
        except Problem as problem:
            return respond(problem, request)
        except HeadraceError as error:
            return respond(problem_of(error), request)

    return answer
