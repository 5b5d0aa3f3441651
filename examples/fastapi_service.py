"""A web service that enqueues a request and returns the prediction later.

    pip install ./producer fastapi uvicorn
    uvicorn --app-dir examples fastapi_service:app

    curl -i localhost:8000/predictions -H 'content-type: application/json' -H 'idempotency-key: order-4711' \\
         -d '{"model": "churn", "instance": {"age": 41, "plan": "gold"}}'        # 202, with a Location
    curl localhost:8000/predictions/<id>

The id of the job exists before the job: it is made from the caller's key. So a caller that does not know whether
its request arrived repeats it, and gets the same job.

The service has no state: jobs are stored in Redis, so every copy of the service can answer for each job. Its test
is test_fastapi_service.py.
"""

import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Header, HTTPException, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel

from headrace import (
    AnyAsyncClient,
    AsyncClient,
    BrokerUnavailable,
    InvalidInput,
    JobConflict,
    JobFailed,
    QueueFull,
)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with AsyncClient() as app.state.headrace:  # HEADRACE_REDIS_URL; one client for all requests
        yield


app = FastAPI(title="Predictions", lifespan=lifespan)


def client_of(request: Request) -> AnyAsyncClient:
    """Return the client. A test overrides this dependency."""
    client: AnyAsyncClient = request.app.state.headrace
    return client


Headrace = Annotated[AnyAsyncClient, Depends(client_of)]


class PredictionRequest(BaseModel):
    model: str
    instance: dict[str, Any] | list[Any]


@app.post("/predictions", status_code=202)
async def enqueue(
    body: PredictionRequest,
    response: Response,
    client: Headrace,
    idempotency_key: Annotated[str | None, Header(max_length=100)] = None,
) -> dict[str, str]:
    """Enqueue a job; return its id once it is stored in Redis. A repeated request is the same job."""
    job_id = f"web-{idempotency_key or uuid.uuid4()}"
    await client.submit(body.model, body.instance, id=job_id, expires=3600)
    response.headers["Location"] = f"/predictions/{job_id}"
    return {"id": job_id}


@app.get("/predictions/{job_id}")
async def read(job_id: str, client: Headrace) -> dict[str, Any]:
    """Return the status of a job, and its prediction once it is finished."""
    job = client.job(job_id)
    status = await job.status()
    if status == "unknown":
        raise HTTPException(404, "unknown or expired prediction")
    if status in {"waiting", "running"}:
        return {"id": job_id, "status": status}
    try:
        result = await job.result()
    except JobFailed as error:  # failed, cancelled or expired; the message contains no value of the instance
        return {"id": job_id, "status": status, "error": str(error)}
    return {"id": job_id, "status": status, "version": result.version, "prediction": result.prediction}


@app.exception_handler(InvalidInput)
async def refuse(_: Request, error: Exception) -> JSONResponse:
    """Answer 422 for an instance that does not fit the model, 409 for a key of another request."""
    return JSONResponse({"detail": str(error)}, 409 if isinstance(error, JobConflict) else 422)


@app.exception_handler(QueueFull)
@app.exception_handler(BrokerUnavailable)
async def unavailable(_: Request, __: Exception) -> JSONResponse:
    """Answer 503 while the queue is full or Redis does not answer; with a key, a request can be repeated."""
    return JSONResponse({"detail": "predictions are not available at the moment"}, 503, {"Retry-After": "5"})
