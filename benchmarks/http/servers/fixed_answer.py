"""Starlette on uvicorn, as the gateway has them: it reads the body, and answers the same whatever it says."""

from __future__ import annotations

import sys

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

_ANSWER = b'{"predictions":[[0.25,0.75]],"model":"logistic","version":"1"}'


async def answer(request: Request) -> Response:
    """Answer, once the body has been read."""
    await request.body()
    return Response(_ANSWER, media_type="application/json")


app = Starlette(routes=[Route("/models/{model}", answer, methods=["POST"])])

if __name__ == "__main__":
    uvicorn.run(
        app,
        host="127.0.0.1",
        port=int(sys.argv[1]),
        loop="uvloop",
        http="httptools",
        access_log=False,
        log_level="warning",
    )
