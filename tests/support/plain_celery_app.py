"""A plain Celery app with a task of the same name as Headrace's, and none of its code."""

from __future__ import annotations

import os
from typing import Any

from celery import Celery

app = Celery("plain", broker=os.environ["REDIS_URL"], backend=os.environ["REDIS_URL"])


@app.task(name="headrace.predict")
def predict(model: str, instances: list[Any], **options: Any) -> dict[str, Any]:
    """Predict twice the age of each instance. Raises ValueError for a negative age."""
    if any(instance["age"] < 0 for instance in instances):
        raise ValueError("an age is not negative")
    return {
        "model": model,
        "version": options.get("version") or "1",
        "predictions": [2 * instance["age"] for instance in instances],
    }
