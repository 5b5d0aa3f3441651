"""A web service that enqueues a request and returns the prediction later.

    pip install headrace fastapi uvicorn
    uvicorn --app-dir examples fastapi_service:app

    curl -i localhost:8000/predictions -H 'content-type: application/json' \\
         -d '{"model": "churn", "instance": {"age": 41, "plan": "gold"}}'        # 202, with a Location
    curl localhost:8000/predictions/<id>

The service has no state: jobs are stored in Redis, so every copy of the service can answer for each job.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel

from headrace import AsyncClient, BrokerUnavailable, InvalidInput, JobFailed, QueueFull


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with AsyncClient() as app.state.headrace:  # HEADRACE_REDIS_URL; one client for all requests
        yield


app = FastAPI(title="Predictions", lifespan=lifespan)


class PredictionRequest(BaseModel):
    model: str
    instance: dict[str, Any] | list[Any]


@app.post("/predictions", status_code=202)
async def enqueue(body: PredictionRequest, request: Request, response: Response) -> dict[str, str]:
    """Enqueue a job; return its id once it is stored in Redis."""
    job = await request.app.state.headrace.submit(body.model, body.instance, expires=3600)
    response.headers["Location"] = f"/predictions/{job.id}"
    return {"id": job.id}


@app.get("/predictions/{job_id}")
async def read(job_id: str, request: Request) -> dict[str, Any]:
    """Return the status of a job, and its prediction once it is finished."""
    job = request.app.state.headrace.job(job_id)
    status = await job.status()
    if status == "unknown":
        raise HTTPException(404, "unknown or expired prediction")
    if status in {"queued", "running"}:
        return {"id": job_id, "status": status}
    try:
        result = await job.result()
    except JobFailed as error:  # failed, cancelled or expired; the message contains no value of the instance
        return {"id": job_id, "status": status, "error": str(error)}
    return {"id": job_id, "status": status, "version": result.version, "prediction": result.prediction}


@app.exception_handler(InvalidInput)
async def refuse(_: Request, error: Exception) -> JSONResponse:
    """Answer 422 for an instance that does not fit the model; nothing was enqueued."""
    return JSONResponse({"detail": str(error)}, 422)


@app.exception_handler(QueueFull)
@app.exception_handler(BrokerUnavailable)
async def unavailable(_: Request, __: Exception) -> JSONResponse:
    """Answer 503 while the queue is full or Redis does not answer."""
    return JSONResponse({"detail": "predictions are not available at the moment"}, 503, {"Retry-After": "5"})
