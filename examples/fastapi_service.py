"""A web service that takes a request, enqueues it, and answers later.

    pip install headrace fastapi uvicorn
    uvicorn --app-dir examples fastapi_service:app

    curl -i localhost:8000/predictions -H 'content-type: application/json' \\
         -d '{"model": "churn", "instance": {"age": 41, "plan": "gold"}}'        # 202, and where to look
    curl localhost:8000/predictions/<id>

The service holds no state: a job lives in Redis, so any copy of the service can answer for it.
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


class Order(BaseModel):
    model: str
    instance: dict[str, Any] | list[Any]


@app.post("/predictions", status_code=202)
async def enqueue(order: Order, request: Request, response: Response) -> dict[str, str]:
    """Returns as soon as the job is safe in Redis."""
    job = await request.app.state.headrace.submit(order.model, order.instance, expires=3600)
    response.headers["Location"] = f"/predictions/{job.id}"
    return {"id": job.id}


@app.get("/predictions/{job_id}")
async def look(job_id: str, request: Request) -> dict[str, Any]:
    """Where the job is; its prediction once there is one."""
    job = request.app.state.headrace.job(job_id)
    status = await job.status()
    if status == "unknown":
        raise HTTPException(404, "no such prediction, or too old")
    if status in {"queued", "running"}:
        return {"id": job_id, "status": status}
    try:
        made = await job.result()
    except JobFailed as error:  # failed, cancelled or expired; the message holds no value of the instance
        return {"id": job_id, "status": status, "error": str(error)}
    return {"id": job_id, "status": status, "version": made.version, "prediction": made.prediction}


@app.exception_handler(InvalidInput)
async def refuse(_: Request, error: Exception) -> JSONResponse:
    """An instance the model cannot take is the caller's to mend: nothing was enqueued."""
    return JSONResponse({"detail": str(error)}, 422)


@app.exception_handler(QueueFull)
@app.exception_handler(BrokerUnavailable)
async def try_later(_: Request, __: Exception) -> JSONResponse:
    """Ours to mend; the caller may come again."""
    return JSONResponse({"detail": "no prediction can be taken at the moment"}, 503, {"Retry-After": "5"})
