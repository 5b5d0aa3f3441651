"""A prediction with plain Celery: any Celery client, in any language, can enqueue a job.

    python examples/plain_celery.py

It needs a worker that serves `churn`: `headrace dev` in another terminal.
"""

import os

from celery import Celery

URL = os.environ.get("HEADRACE_REDIS_URL", "redis://127.0.0.1:6379/0")

app = Celery(broker=URL, backend=URL)
customer = {"age": 41, "plan": "gold"}
job = app.send_task("headrace.predict", args=["churn", [customer]], queue="predict.churn")
print(job.get(timeout=10))  # {'model': 'churn', 'version': '1', 'predictions': [0]}
