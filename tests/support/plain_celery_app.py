"""A plain Celery app with a task of the name of Headrace's, and none of its code."""

from __future__ import annotations

import os
from typing import Any

from celery import Celery

app = Celery("plain", broker=os.environ["REDIS_URL"], backend=os.environ["REDIS_URL"])


@app.task(name="headrace.predict")
def predict(model: str, instances: list[Any], **options: Any) -> dict[str, Any]:
    """Twice the age of each instance; a negative one is no age."""
    if any(instance["age"] < 0 for instance in instances):
        raise ValueError("an age is not negative")
    return {
        "model": model,
        "version": options.get("version") or "1",
        "predictions": [2 * i["age"] for i in instances],
    }
