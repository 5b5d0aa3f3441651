"""`GET /docs` and the pages below it."""

from __future__ import annotations

from functools import cache
from importlib import resources

from starlette.requests import Request
from starlette.responses import Response

from headrace_gateway.pages.problems import render_problem, render_problems
from headrace_gateway.problems import Problem
from headrace_gateway.routing import Route

#: A page loads its own files only, sends requests to its own gateway only, and stands in no frame.
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


async def show_page(_: Request) -> Response:
    """Answer with the page of the API."""
    return _answer(_read("docs.html"), "text/html")


async def show_style(_: Request) -> Response:
    """Answer with the style of the pages."""
    return _answer(_read("page.css"), "text/css")


async def show_script(_: Request) -> Response:
    """Answer with the script of the page."""
    return _answer(_read("page.js"), "text/javascript")


async def show_problems(_: Request) -> Response:
    """Answer with the types of problems."""
    return _answer(render_problems(), "text/html")


async def show_problem(request: Request) -> Response:
    """Answer with the page of one type of problem."""
    page = render_problem(request.path_params["kind"])
    if page is None:
        raise Problem(404, "not-found", "no problem has this type; GET /docs/problems lists them")
    return _answer(page, "text/html")


@cache
def _read(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


def _answer(text: str, media_type: str) -> Response:
    return Response(text, media_type=media_type, headers=_HEADERS)


routes = [
    Route("/docs", show_page),
    Route("/docs/page.css", show_style),
    Route("/docs/page.js", show_script),
    Route("/docs/problems", show_problems),
    Route("/docs/problems/{kind}", show_problem),
]
