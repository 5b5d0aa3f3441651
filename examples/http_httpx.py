"""Many jobs at once with httpx and asyncio, from an asynchronous service. It needs httpx, and nothing of Headrace.

    python examples/http_httpx.py

HEADRACE_API is the gateway's address, HEADRACE_API_KEY your key if it asks for one.
"""

import asyncio
import os
import uuid
from typing import Any

import httpx

API = os.environ.get("HEADRACE_API", "http://127.0.0.1:8080")
HEADERS = {"Authorization": f"Bearer {os.environ.get('HEADRACE_API_KEY', 'none')}"}
ATTEMPTS = 6


async def send(client: httpx.AsyncClient, method: str, path: str, **options: Any) -> httpx.Response:
    """Send a request that may be repeated, and repeat it if there was no answer, or 429 or 503."""
    for attempt in range(1, ATTEMPTS + 1):
        seconds = 0.1 * 2**attempt
        try:
            answer = await client.request(method, path, **options)
        except httpx.TransportError:
            if attempt == ATTEMPTS:
                raise
        else:
            if answer.status_code not in {429, 503} or attempt == ATTEMPTS:
                return answer
            seconds = float(answer.headers.get("Retry-After", seconds))
        await asyncio.sleep(seconds)
    raise AssertionError("unreachable")


async def score(client: httpx.AsyncClient, order: str, customer: dict) -> Any:
    """Submit a job for a customer under an id of our own, and return its prediction."""
    body = {"model": "churn", "instances": [customer]}
    answer = await send(client, "PUT", f"/v1/jobs/{order}", json=body, headers={"Prefer": "wait=20"})
    while answer.is_success and answer.json()["status"] in {"waiting", "running"}:
        answer = await send(client, "GET", f"/v1/jobs/{order}", headers={"Prefer": "wait=20"})
    document = answer.json()
    if not answer.is_success:
        raise ValueError(document["detail"])
    if document["status"] != "success":
        raise RuntimeError(f"{document['status']}: {document.get('message', '')}")
    return document["predictions"][0]


async def main() -> None:
    """Score a hundred customers, and show that a bad one fails alone."""
    night = uuid.uuid4()
    customers = [{"age": 20 + number % 60, "plan": "gold"} for number in range(100)]
    customers[7] = {"age": 41}
    async with httpx.AsyncClient(base_url=API, headers=HEADERS, timeout=60) as client:
        jobs = [score(client, f"{night}-{number}", customer) for number, customer in enumerate(customers)]
        scores = await asyncio.gather(*jobs, return_exceptions=True)
    refused = [score for score in scores if isinstance(score, ValueError)]
    failed = [score for score in scores if isinstance(score, BaseException) and score not in refused]
    print("scored:", len(scores) - len(refused) - len(failed))
    print("refused:", *refused)
    if failed:
        raise failed[0]


asyncio.run(main())
