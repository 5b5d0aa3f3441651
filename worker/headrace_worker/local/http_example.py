"""One prediction over HTTP: as a `curl` line, and, with the demonstration model `churn`, as a request."""

from __future__ import annotations

import json
import shlex
import urllib.request
from typing import Any

_PATH = "/v1/models/churn:predict"
_INSTANCE = {"age": 41, "plan": "gold"}
_BODY = json.dumps({"instances": [_INSTANCE]})
_HEADERS = {"Content-Type": "application/json"}


def curl_line(url: str, model: str = "churn", instance: Any = _INSTANCE) -> str:
    """Return the command line that asks the gateway at this URL for a prediction of an instance."""
    headers = "".join(f" -H '{name}: {value}'" for name, value in _HEADERS.items())
    body = shlex.quote(json.dumps({"instances": [instance]}))
    return f"curl {url}/v1/models/{model}:predict{headers} -d {body}"


def predict_over_http(url: str, timeout: float = 30) -> str:
    """Send what `curl_line` sends, and return the body of the answer. Raises OSError; `timeout` is in seconds."""
    request = urllib.request.Request(url + _PATH, _BODY.encode(), _HEADERS)  # noqa: S310  # http on loopback
    with urllib.request.urlopen(request, timeout=timeout) as response:  # noqa: S310  # http on loopback
        answer: str = response.read().decode()
    return answer
