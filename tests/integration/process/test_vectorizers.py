"""Real workers give a vectorizer rows as the clients send them: without absent keys, and lists of any length."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from headrace import Client
from headrace.connection.celery import create_celery_app
from headrace.errors import InvalidInput
from headrace.settings import Settings
from headrace_worker.notebook import package
from tests.support import vectorizer_models
from tests.support.command import headrace
from tests.support.trusting_worker import run_trusting_worker

#: Rows of which each lacks other keys, and one has a value that the vectorizer was not fitted on.
ROWS: list[dict[str, Any]] = [{"floor": 2}, {}, {"city": "Rome"}, {"area": 55.5, "city": "Bern", "floor": 1}]
TOKENS = [["New York"], [], ["snow", "rain", "hail", "wind", "snow"], ["sun", "warm"]]

#: An analyzer that no module has.
LOWER = lambda tokens: [token.lower() for token in tokens]  # noqa: E731  # its name would be stored otherwise


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("vectorizers")
    options: dict[str, Any] = {"runtime": "sklearn", "store": str(folder / "models")}
    package(vectorizer_models.fit_objects(), vectorizer_models.ROWS, name="objects", **options)
    package(vectorizer_models.fit_tokens(), vectorizer_models.TOKENS, name="tokens", trust_pickle=True, **options)
    package(
        vectorizer_models.fit_tokens(LOWER),
        vectorizer_models.TOKENS,
        name="lambda",
        trust_pickle=True,
        **options,
    )
    with run_trusting_worker(folder) as url:
        yield url


def test_rows_that_lack_keys_are_predicted_as_the_vectorizer_itself_does(url: str) -> None:
    with Client(url) as client:
        prediction = client.predict("objects", instances=ROWS, method="predict_proba", timeout=30)
    assert prediction.predictions == vectorizer_models.fit_objects().predict_proba(ROWS).tolist()


@pytest.mark.parametrize(("name", "analyzer"), [("tokens", vectorizer_models.keep_tokens), ("lambda", LOWER)])
def test_lists_of_tokens_are_predicted_as_the_vectorizer_itself_does(url: str, name: str, analyzer: Any) -> None:
    with Client(url) as client:
        prediction = client.predict(name, instances=TOKENS, method="predict_proba", timeout=30)
    expected = vectorizer_models.fit_tokens(analyzer).predict_proba(TOKENS).tolist()
    assert prediction.predictions == expected


def test_a_client_and_a_worker_refuse_what_the_vectorizers_do_not_take(url: str) -> None:
    with Client(url) as client:
        with pytest.raises(
            InvalidInput, match="instance 1: no feature 'flor' in the contract; did you mean 'floor'"
        ):
            client.predict("objects", instances=[{}, {"flor": 2}])
        with pytest.raises(InvalidInput, match=r"instance 1: at \[1\]: must be a string, got a number"):
            client.predict("tokens", instances=[[], ["rain", 1]])
    app = create_celery_app(Settings(redis_url=url))
    try:
        for name, instance in (
            ("objects", {"flor": 2}),
            ("objects", {"area": "wide"}),
            ("tokens", ["rain", ["x"]]),
        ):
            result = app.send_task("headrace.predict", args=[name, [instance]], queue=f"predict.{name}")
            with pytest.raises(Exception, match="instance 0"):
                result.get(timeout=30)
    finally:
        app.close()


def test_files_of_json_lines_and_csv_leave_keys_out(url: str, tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text("".join(f"{json.dumps(row | {'id': 7})}\n" for row in ROWS))
    (tmp_path / "rows.csv").write_text("id,floor,city\n7,2,\n7,,\n7,,Rome\n")
    (tmp_path / "tokens.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in TOKENS))
    for model, file, rows in (
        ("objects", "rows.jsonl", vectorizer_models.fit_objects().predict(ROWS)),
        ("objects", "rows.csv", vectorizer_models.fit_objects().predict(ROWS[:3])),
        ("tokens", "tokens.jsonl", vectorizer_models.fit_tokens().predict(TOKENS)),
    ):
        result = headrace(
            *("batch", model, str(tmp_path / file), "-o", "-", "--format", "jsonl"), HEADRACE_REDIS_URL=url
        )
        assert result.returncode == 0, result.stderr
        assert [json.loads(line)["prediction"] for line in result.stdout.splitlines()] == rows.tolist(), file
