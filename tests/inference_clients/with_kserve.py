"""Print the answers of a gateway to KServe's SDK, as JSON.

Arguments: the gateway's URL, a JSON table of `churn`'s rows.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import httpx
import numpy as np
import pandas as pd
from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig
from kserve.protocol.infer_type import RequestedOutput


def make_request(table: pd.DataFrame, *, binary: bool) -> InferRequest:
    """Return the request of a table, its data as bytes or as JSON."""
    inputs = []
    for name, datatype in (("age", "FP64"), ("plan", "BYTES")):
        column = table[name].to_numpy()
        tensor = InferInput(name, list(column.shape), datatype)
        # As JSON, the SDK writes NaN as null.
        tensor.set_data_from_numpy(column, binary_data=binary)
        inputs.append(tensor)
    outputs = [RequestedOutput(name, {"binary_data": binary}) for name in ("predict", "predict_proba")]
    return InferRequest("churn", inputs, request_id="4711", request_outputs=outputs)


async def call(url: str, table: pd.DataFrame) -> dict[str, Any]:
    """Return the answers of protocol v2, and the prediction of protocol v1."""
    answers: dict[str, Any] = {}
    client = InferenceRESTClient(RESTConfig(protocol="v2", retries=0))
    answers["live"] = await client.is_server_live(url)
    answers["ready"] = await client.is_server_ready(url)
    answers["models"] = [await client.is_model_ready(url, name) for name in ("churn", "churned")]
    for binary in (True, False):
        answer = await client.infer(url, make_request(table, binary=binary), model_name="churn")
        values = {output.name: output.as_numpy().tolist() for output in answer.outputs}
        answers["binary" if binary else "json"] = [answer.id, answer.model_name, values]
    pixels = InferInput("pixels", [1, 2, 2], "FP32")
    pixels.set_data_from_numpy(np.zeros((1, 2, 2), dtype="float32"), binary_data=True)
    try:
        await client.infer(url, InferRequest("digits", [pixels]), model_name="digits")
    except httpx.HTTPStatusError as error:
        answers["error"] = str(error)
    await client.close()
    client = InferenceRESTClient(RESTConfig(protocol="v1", retries=0))
    instances = json.loads(table.to_json(orient="records"))
    answer = await client.infer(url, {"instances": instances}, model_name="churn")
    answers["v1"] = answer["predictions"]
    answers["v1 ready"] = await client.is_model_ready(url, "churn")
    await client.close()
    return answers


if __name__ == "__main__":
    url, rows = sys.argv[1:]
    json.dump(asyncio.run(call(url, pd.DataFrame(json.loads(rows)))), sys.stdout)
