"""Flower's own variables of the environment hold for `headrace flower` too."""

from __future__ import annotations

import json
import re
import urllib.request
from itertools import count
from pathlib import Path

from headrace.connection.celery import create_celery_app
from headrace.settings import Settings
from headrace_worker.local.stack import Child
from tests.support.connections import free_port
from tests.support.waiting import wait_until


def read(url: str) -> str:
    """Return what Flower answers, "" while it does not listen yet."""
    try:
        with urllib.request.urlopen(url, timeout=10) as response:
            return str(response.read().decode())
    except OSError:
        return ""


def test_flowers_variables_are_not_put_aside(redis_url: str, tmp_path: Path):
    port = free_port()
    variables = {
        "HEADRACE_REDIS_URL": redis_url,
        "HEADRACE_FLOWER_OPEN": "true",
        "FLOWER_UNAUTHENTICATED_API": "true",
        "FLOWER_ADDRESS": "127.0.0.2",
        "FLOWER_PORT": str(port),
        "FLOWER_MAX_TASKS": "2",
        "FLOWER_TASKS_COLUMNS": "uuid,runtime",
    }
    url = f"http://127.0.0.2:{port}"
    flower = Child("flower", ["headrace.cli", "flower"], variables, tmp_path / "flower.log")
    app = create_celery_app(Settings(redis_url=redis_url))
    try:
        wait_until(lambda: read(f"{url}/healthcheck"), 30)
        numbers = count()
        with app.events.default_dispatcher() as dispatcher:

            def send() -> bool:
                """Send one more event; Flower may not be subscribed yet."""
                dispatcher.send("task-received", uuid=f"job-{next(numbers)}", name="headrace.predict")
                received = re.search(r'type="task-received"[^}]*\} (\S+)', read(f"{url}/metrics"))
                return received is not None and float(received[1]) >= 5

            wait_until(send, 20)
        assert len(json.loads(read(f"{url}/api/tasks"))) == 2
        titles = re.findall(r"<th[^>]*>([^<]*)</th>", read(f"{url}/tasks"))
        assert [title.strip() for title in titles] == ["UUID", "Runtime"]
    finally:
        flower.stop()
        app.close()
