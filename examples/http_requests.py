"""Predictions and jobs with requests, from a blocking service or script. It needs nothing of Headrace.

    python examples/http_requests.py

HEADRACE_API is the gateway's address, HEADRACE_API_KEY your key if it asks for one.
"""

import os
import uuid

import requests
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

API = os.environ.get("HEADRACE_API", "http://127.0.0.1:8080")


def open_session() -> requests.Session:
    """Return a session that repeats what was not answered, or with 429 or 503, after the seconds of Retry-After.

    A repeated POST is safe with an Idempotency-Key: one key is one job.
    """
    session = requests.Session()
    session.headers["Authorization"] = f"Bearer {os.environ.get('HEADRACE_API_KEY', 'none')}"
    retry = Retry(total=5, backoff_factor=0.5, status_forcelist=(429, 503), allowed_methods=None)
    session.mount(API, HTTPAdapter(max_retries=retry))
    return session


def predict(session: requests.Session, model: str, instances: list) -> list:
    """Return a prediction for each instance. Raises ValueError with the text of the error."""
    answer = session.post(
        f"{API}/v1/models/{model}:predict",
        json={"instances": instances},
        headers={"Idempotency-Key": str(uuid.uuid4())},
        timeout=60,
    )
    if answer.status_code == 202:  # the job goes on: wait for it by its id
        return wait_for(session, answer.json()["id"])
    if not answer.ok:
        raise ValueError(answer.json()["detail"])
    return answer.json()["predictions"]


def submit(session: requests.Session, order: str, model: str, instances: list) -> str:
    """Submit a job under an id of our own, and return the id under which the gateway knows it."""
    answer = session.put(f"{API}/v1/jobs/{order}", json={"model": model, "instances": instances}, timeout=60)
    if not answer.ok:
        raise ValueError(answer.json()["detail"])
    return answer.json()["id"]


def wait_for(session: requests.Session, job: str) -> list:
    """Return the predictions of a job. Each request waits up to 20 seconds, so this asks seldom."""
    while True:
        answer = session.get(f"{API}/v1/jobs/{job}", headers={"Prefer": "wait=20"}, timeout=60)
        answer.raise_for_status()
        document = answer.json()
        if document["status"] == "success":
            return document["predictions"]
        if document["status"] not in {"waiting", "running"}:
            raise RuntimeError(f"job {job}: {document['status']}: {document.get('message', '')}")


with open_session() as session:
    print("predicted:", predict(session, "churn", [{"age": 41, "plan": "gold"}]))

    order = f"order-{uuid.uuid4()}"
    customers = [{"age": 41, "plan": "gold"}, {"age": 23, "plan": "basic"}]
    job = submit(session, order, "churn", customers)
    print("job:", wait_for(session, job))
    print("repeated:", submit(session, order, "churn", customers) == job)  # the same request is the same job

    try:
        predict(session, "churn", [{"age": "41", "plan": "gold"}])
    except ValueError as error:
        print("refused:", error)
