"""A route of FastAPI that calls the model in its process, as the tutorials show it.

The route is `async`: one that is not runs in a thread, and costs more. uvicorn has uvloop, httptools and no log.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import joblib
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel

_MODELS: dict[str, Any] = {}


class Body(BaseModel):
    """The body of a request."""

    instances: list[list[float]]


for _file in Path(os.environ.get("BENCH_MODELS", "/none")).glob("*.joblib"):
    _MODELS[_file.stem] = joblib.load(_file)

app = FastAPI()


@app.post("/models/{model}")
async def predict(model: str, body: Body) -> dict[str, Any]:
    """Predict with the model."""
    return {"predictions": _MODELS[model].predict_proba(body.instances).tolist()}


if __name__ == "__main__":
    port, folder = int(sys.argv[1]), sys.argv[2]
    os.environ["BENCH_MODELS"] = folder
    uvicorn.run(
        "benchmarks.http.servers.fastapi_in_process:app",
        host="127.0.0.1",
        port=port,
        workers=int(sys.argv[3]) if len(sys.argv) > 3 else 1,
        loop="uvloop",
        http="httptools",
        access_log=False,
        log_level="warning",
    )
