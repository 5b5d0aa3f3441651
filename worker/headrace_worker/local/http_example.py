"""One prediction over HTTP with the demonstration model `churn`: as a `curl` line, and as a request."""

from __future__ import annotations

import json
import urllib.request

_PATH = "/v1/models/churn:predict"
_BODY = json.dumps({"instances": [{"age": 41, "plan": "gold"}]})
_HEADERS = {"Content-Type": "application/json"}


def curl_line(url: str) -> str:
    """Return the command line that asks the gateway at this URL for a prediction."""
    headers = "".join(f" -H '{name}: {value}'" for name, value in _HEADERS.items())
    return f"curl {url}{_PATH}{headers} -d '{_BODY}'"


def predict_over_http(url: str, timeout: float = 30) -> str:
    """Send what `curl_line` sends, and return the body of the answer. Raises OSError; `timeout` is in seconds."""
    request = urllib.request.Request(url + _PATH, _BODY.encode(), _HEADERS)  # noqa: S310  # http on loopback
    with urllib.request.urlopen(request, timeout=timeout) as response:  # noqa: S310  # http on loopback
        answer: str = response.read().decode()
    return answer
