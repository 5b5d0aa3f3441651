"""Every face gives the probabilities of a real worker with the labels of their classes."""

from __future__ import annotations

import asyncio
import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

from headrace import AsyncClient, Client
from headrace.connection.celery import create_celery_app
from headrace.settings import Settings
from headrace_worker.local.embedded_redis import EmbeddedRedis
from tests.support.claim_models import running_worker
from tests.support.command import headrace
from tests.support.packaged_models import add_model

X, Y = load_iris(return_X_y=True)
NAMES = ["setosa", "versicolor", "virginica"]
ESTIMATOR = LogisticRegression(max_iter=500).fit(X, np.array(NAMES)[Y])
ROWS: list[Any] = X[::30].tolist()
EXPECTED = [dict(zip(NAMES, row, strict=True)) for row in ESTIMATOR.predict_proba(ROWS).tolist()]


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder: Path = tmp_path_factory.mktemp("labels")
    add_model(folder, ESTIMATOR, ROWS)
    with (
        EmbeddedRedis("--appendfsync", "no") as server,
        running_worker(url=server.url, models=folder / "store", folder=folder),
    ):
        yield server.url


def test_the_client_has_them_for_jobs_that_share_a_batch_and_not_for_other_methods(url: str):
    with Client(url) as client:
        probable = client.submit_many("model", ROWS, method="predict_proba")
        plain = client.submit_many("model", ROWS)
        labelled = [job.result(timeout=60).labelled for job in probable]
        assert [job.result(timeout=60).classes for job in plain] == [None] * len(ROWS)
        assert labelled == [pytest.approx(expected) for expected in EXPECTED]
        together = client.submit("model", instances=ROWS, method="predict_proba").result(timeout=60)
    assert together.labelled == [pytest.approx(expected) for expected in EXPECTED]
    assert together.classes == tuple(NAMES)


def test_the_asyncio_client_has_them(url: str):
    async def predict() -> Any:
        async with AsyncClient(url) as client:
            return await client.predict("model", ROWS[0], method="predict_proba", timeout=60)

    assert asyncio.run(predict()).labelled == pytest.approx(EXPECTED[0])


def test_a_plain_celery_client_has_them_once_in_a_result(url: str):
    app = create_celery_app(Settings(redis_url=url))
    result = app.send_task(
        "headrace.predict", args=["model", ROWS], kwargs={"method": "predict_proba"}, queue="predict.model"
    ).get(timeout=60)
    assert result["classes"] == NAMES
    assert [dict(zip(NAMES, row, strict=True)) for row in result["predictions"]] == [
        pytest.approx(expected) for expected in EXPECTED
    ]


def test_the_commands_print_them(url: str):
    arguments = ("submit", "model", json.dumps(ROWS), "--method", "predict_proba", "--wait", "--url", url)
    printed = headrace(*arguments)
    assert [json.loads(line) for line in printed.stdout.splitlines()] == [
        pytest.approx(expected) for expected in EXPECTED
    ]
    assert json.loads(headrace(*arguments, "--json").stdout)["classes"] == NAMES


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_a_file_of_predictions_names_them(url: str, form: str):
    table = "a,b,c,d\n" + "".join(",".join(map(str, row)) + "\n" for row in ROWS)
    lines = "".join(json.dumps(row) + "\n" for row in ROWS)
    written = headrace(
        *("batch", "model", "-", "-o", "-", "--format", form, "--method", "predict_proba", "--url", url),
        stdin=table if form == "csv" else lines,
    )
    assert written.returncode == 0, written.stderr
    if form == "csv":
        rows = csv.DictReader(io.StringIO(written.stdout))
        labelled = [{name: float(row[f"prediction_{name}"]) for name in NAMES} for row in rows]
    else:
        labelled = [json.loads(line)["prediction"] for line in written.stdout.splitlines()]
    assert labelled == [pytest.approx(expected) for expected in EXPECTED]
