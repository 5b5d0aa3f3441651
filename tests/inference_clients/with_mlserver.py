"""Print the answers of a gateway to requests of MLServer's codecs, as JSON.

Arguments as those of with_kserve.py.
"""

from __future__ import annotations

import json
import sys
import urllib.request
from typing import Any

import numpy as np
import pandas as pd
from mlserver.codecs import NumpyCodec, NumpyRequestCodec, PandasCodec
from mlserver.types import InferenceRequest, InferenceResponse, RequestOutput


def infer(url: str, model: str, body: InferenceRequest, *outputs: str) -> InferenceResponse:
    """Send a request and return the answer, checked by MLServer's types."""
    body.outputs = [RequestOutput(name=name) for name in outputs] or None
    request = urllib.request.Request(f"{url}/v2/models/{model}/infer", body.model_dump_json().encode())
    with urllib.request.urlopen(request) as answer:
        return InferenceResponse.model_validate_json(answer.read())


def call(url: str, table: pd.DataFrame, images: np.ndarray[Any, Any]) -> dict[str, Any]:
    """Return predictions of a table and of images."""
    frame = PandasCodec.encode_request(table, use_bytes=False)
    mixed = PandasCodec.encode_request(table.assign(plan=["gold", 3] * (len(table) // 2)), use_bytes=False)
    array = NumpyRequestCodec.encode_request(images)
    proba = infer(url, "churn", frame, "predict_proba").outputs[0]
    labels = PandasCodec.decode_response(infer(url, "churn", frame, "predict"))
    return {
        "frame": NumpyCodec.decode_output(proba).tolist(),
        "labels": labels["predict"].tolist(),
        "content type of mixed values": mixed.inputs[1].parameters.content_type,
        "images": NumpyCodec.decode_output(infer(url, "digits", array).outputs[0]).tolist(),
    }


if __name__ == "__main__":
    url, rows, images = sys.argv[1:]
    json.dump(call(url, pd.DataFrame(json.loads(rows)), np.array(json.loads(images))), sys.stdout)
