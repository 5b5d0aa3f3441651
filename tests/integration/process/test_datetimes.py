"""Real workers give a model its datetimes as it was fitted on them, whatever a client sends."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterator
from pathlib import Path

import joblib
import pytest

from headrace import AsyncClient, Client
from headrace.connection.celery import create_celery_app
from headrace.errors import InvalidInput
from headrace.settings import Settings
from headrace_worker.packaging.package import package
from headrace_worker.packaging.table import read_table
from headrace_worker.store.store import Store
from tests.support import datetime_models
from tests.support.command import headrace
from tests.support.trusting_worker import run_trusting_worker

#: An hour that Berlin has twice: the first is at 2 in summer time, the second at 2 in winter time.
AUTUMN = ["2025-10-26T00:30:00Z", "2025-10-26T01:30:00Z", "2025-10-26T02:30:00Z"]


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("datetimes")
    joblib.dump(datetime_models.fit(), folder / "model.joblib")
    package(
        Store(folder / "models"),
        folder / "model.joblib",
        name="hours",
        example=read_table(datetime_models.TABLE),
        trust_pickle=True,
    )
    with run_trusting_worker(folder) as url:
        yield url


async def test_python_clients_send_datetimes_and_texts(url: str) -> None:
    started = dt.datetime(2025, 10, 1, 7)
    texts = [{"paid": text, "started": "2025-10-01T07:00:00"} for text in AUTUMN]
    objects = [{"paid": dt.datetime.fromisoformat(text), "started": started} for text in AUTUMN]
    async with AsyncClient(url) as client:
        from_texts = await client.predict("hours", instances=texts, timeout=30)
        from_objects = await client.predict("hours", instances=objects, timeout=30)
    assert from_texts.predictions == pytest.approx([702, 702, 703])
    assert from_objects.predictions == from_texts.predictions


def test_a_client_refuses_a_datetime_whose_zone_is_missing_or_too_many(url: str) -> None:
    with Client(url) as client:
        with pytest.raises(InvalidInput, match="feature 'paid' must be a datetime with a zone"):
            client.predict("hours", instances=[{"paid": "2025-10-26T01:30:00", "started": "2025-10-01"}])
        with pytest.raises(InvalidInput, match="feature 'started' must be a datetime without a zone"):
            client.predict("hours", instances=[{"paid": AUTUMN[0], "started": AUTUMN[0]}])


def test_a_plain_celery_client_sends_datetimes_of_python(url: str) -> None:
    instances = [
        {"paid": dt.datetime.fromisoformat(text), "started": dt.datetime(2025, 10, 1, 7)} for text in AUTUMN
    ]
    app = create_celery_app(Settings(redis_url=url))
    try:
        result = app.send_task("headrace.predict", args=["hours", instances], queue="predict.hours")
        assert result.get(timeout=30)["predictions"] == pytest.approx([702, 702, 703])
    finally:
        app.close()


def test_a_file_of_datetimes_is_predicted(url: str, tmp_path: Path) -> None:
    rows = "".join(f"{text},2025-10-01 07:00\n" for text in AUTUMN)
    (tmp_path / "rows.csv").write_text(f"paid,started\n{rows}")
    result = headrace(
        *("batch", "hours", str(tmp_path / "rows.csv"), "-o", "-", "--format", "jsonl"), HEADRACE_REDIS_URL=url
    )
    assert result.returncode == 0, result.stderr
    predictions = [json.loads(line)["prediction"] for line in result.stdout.splitlines()]
    assert predictions == pytest.approx([702, 702, 703])
