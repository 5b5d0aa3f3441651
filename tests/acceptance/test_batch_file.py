"""Tests of `headrace batch` and `predict_file` with a Redis and a stock Celery worker."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import pytest
import redis

from headrace import Client, ResultTimeout
from headrace.batch import PredictedRow, Progress, predict_file, predict_rows
from headrace.settings import Settings
from headrace.wire.keys import Keys
from headrace_worker.local.embedded_redis import EmbeddedRedis
from tests.support.command import headrace
from tests.support.stock_worker import publish_stock_contract, start_stock_worker
from tests.support.waiting import wait_until


@pytest.fixture(scope="module")
def _worker(redis_server: EmbeddedRedis, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with start_stock_worker(redis_server.url, tmp_path_factory.mktemp("worker") / "log"):
        yield


@pytest.fixture
def url(redis_url: str, _worker: None) -> str:
    """Return the URL of a Redis with a worker that serves `churn`."""
    publish_stock_contract(redis_url)
    return redis_url


@pytest.fixture
def idle_url(redis_server: EmbeddedRedis) -> Iterator[str]:
    """Return the URL of another database of the server, without a worker."""
    url = redis_server.url.removesuffix("/0") + "/1"
    publish_stock_contract(url)
    yield url
    with redis.Redis.from_url(url) as client:
        client.flushdb()


def count_waiting(url: str) -> int:
    with Client(url) as client:
        return client.queues()[0].waiting


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def write_people(path: Path, count: int, *, bad_plans: dict[int, str] | None = None) -> Path:
    rows = [f"{number},{number},{(bad_plans or {}).get(number, 'gold')}" for number in range(count)]
    path.write_text("id,age,plan\n" + "\n".join(rows) + "\n")
    return path


def test_a_csv_is_written_in_order_with_its_columns_and_predictions(url, tmp_path):
    source, target = write_people(tmp_path / "in.csv", 1050), tmp_path / "out.csv"
    result = headrace("batch", "churn", str(source), "-o", str(target), "--json", "--url", url)
    assert result.returncode == 0, result.stderr
    rows = read_csv(target)
    assert list(rows[0]) == ["id", "age", "plan", "prediction", "error"]
    assert [(row["id"], float(row["prediction"]), row["error"]) for row in rows] == [
        (str(number), 2 * number, "") for number in range(1050)
    ]
    report = json.loads(result.stdout)
    assert (report["rows"], report["failed"], report["version"]) == (1050, 0, "3")
    assert "1,050 rows predicted by churn@3" in result.stderr
    assert list(tmp_path.glob(".*")) == []


def test_only_bad_rows_fail_and_the_exit_code_is_3(url, tmp_path):
    source, target = tmp_path / "in.csv", tmp_path / "out.csv"
    write_people(source, 250, bad_plans={7: "fail", 130: "fail", 131: "fail,ragged"})
    source.write_text(source.read_text() + "250,old,gold\n")
    result = headrace("batch", "churn", str(source), "-o", str(target), "--url", url)
    assert result.returncode == 3
    assert "251 rows predicted" in result.stderr
    assert "4 failed" in result.stderr
    rows = read_csv(target)
    failed = {number: row["error"] for number, row in enumerate(rows) if row["error"]}
    assert failed == {
        7: "line 9: permanent: ValueError: the model cannot",
        130: "line 132: permanent: ValueError: the model cannot",
        131: "line 133: the row has 4 cells, and the file 3 columns",
        250: "line 252: feature 'age' must be a number, got a string",
    }
    assert all(row["prediction"] == "" for number, row in enumerate(rows) if number in failed)
    assert [float(row["prediction"]) for number, row in enumerate(rows) if number not in failed] == [
        2 * number for number in range(251) if number not in failed
    ]


def test_standard_input_to_standard_output_in_json_lines(url):
    lines = '{"id": 1, "age": 2, "plan": "gold"}\n\nnonsense\n{"id": 3, "age": null, "plan": "x"}\n'
    result = headrace("batch", "churn", "-", "-o", "-", "--format", "jsonl", "--url", url, stdin=lines)
    assert result.returncode == 3
    assert [json.loads(line) for line in result.stdout.splitlines()] == [
        {"id": 1, "age": 2, "plan": "gold", "prediction": 4, "error": None},
        {"prediction": None, "error": "line 3: the line is not a JSON value"},
        {"id": 3, "age": None, "plan": "x", "prediction": None, "error": None},
    ]


def test_probabilities_have_a_column_for_each_class(url):
    result = headrace(
        *("batch", "churn", "-", "-o", "-", "--format", "csv", "--method", "predict_proba", "--url", url),
        stdin="age;plan\n1;gold\n;x\n",
    )
    assert (result.returncode, result.stdout.splitlines()) == (
        0,
        ["age;plan;prediction_basic;prediction_gold;error", "1;gold;0.25;0.75;", ";x;0.25;0.75;"],
    )


def test_csv_becomes_json_lines_and_json_lines_become_csv(url, tmp_path):
    source, middle, target = tmp_path / "in.csv", tmp_path / "middle.jsonl", tmp_path / "out.csv"
    source.write_text("age,plan\n1,gold\n")
    with Client(url) as client:
        predict_file(client, "churn", source, middle)
        assert json.loads(middle.read_text()) == {"age": 1.0, "plan": "gold", "prediction": 2.0, "error": None}
        middle.write_text(
            '{"age": 1, "plan": "gold"}\n{"age": 1, "plan": "x", "extra": 1}\n{"plan": "y", "age": 2}\n'
        )
        report = predict_file(client, "churn", middle, target)
    assert report.failed == 1
    assert target.read_text().splitlines() == [
        "age,plan,prediction,error",
        "1,gold,2,",
        '1,x,,"line 2: the row has a key that the first row lacks, and a CSV has the same columns in every row"',
        "2,y,4,",
    ]


def test_a_header_without_rows_gives_a_header_without_rows(url, tmp_path):
    source, target = tmp_path / "in.csv", tmp_path / "out.csv"
    source.write_text("plan,age\n")
    result = headrace("batch", "churn", str(source), "-o", str(target), "--url", url)
    assert (result.returncode, target.read_text()) == (0, "plan,age,prediction,error\n")


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        (b"Age,plan\n1,x\n", [], "'age' (did you mean 'Age'?)"),
        (b"", [], "is empty"),
        ("age,plan\n1,x\n".encode("utf-16"), [], "is not UTF-8: line 1, byte 1"),
        (b"age,plan,age\n1,x,2\n", [], "columns 1 and 3 are both named 'age'"),
        (b"age,plan,prediction\n1,x,2\n", [], "has a column 'prediction'"),
        (b"age,plan\n1,x\n", ["--method", "transform"], "has no method"),
        (b"age,plan\n1,x\n", ["--version", "9"], "version '9'"),
    ],
)
def test_a_file_that_cannot_be_predicted_is_refused_before_anything_is_enqueued(
    idle_url, tmp_path, content, options, message
):
    source, target = tmp_path / "in.csv", tmp_path / "out.csv"
    source.write_bytes(content)
    result = headrace("batch", "churn", str(source), "-o", str(target), *options, "--url", idle_url)
    assert result.returncode == 1
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == [source]
    assert count_waiting(idle_url) == 0


def test_a_target_that_must_not_be_written_is_refused(idle_url, tmp_path):
    source = write_people(tmp_path / "in.csv", 1)
    other = tmp_path / "other.csv"
    other.write_text("precious")
    for target, options, message in [
        (source, ["--force"], "is the input"),
        (other, [], "--force overwrites it"),
        (tmp_path / "no" / "out.csv", [], "there is no folder"),
        (tmp_path / "out.parquet", [], "say --format"),
        (tmp_path, ["--format", "csv"], "is a folder"),
    ]:
        result = headrace("batch", "churn", str(source), "-o", str(target), *options, "--url", idle_url)
        assert result.returncode == 1
        assert message in result.stderr
    missing = headrace("batch", "churn", str(tmp_path / "no.csv"), "-o", "-", "--format", "csv", "--url", idle_url)
    assert "no.csv cannot be read: No such file" in missing.stderr
    assert other.read_text() == "precious"


def test_an_existing_target_is_replaced_with_force(url, tmp_path):
    source, target = write_people(tmp_path / "in.csv", 1), tmp_path / "out.csv"
    target.write_text("old")
    assert headrace("batch", "churn", str(source), "-o", str(target), "--force", "--url", url).returncode == 0
    assert len(read_csv(target)) == 1


def test_a_wrong_byte_in_a_late_line_leaves_no_output_and_no_waiting_job(idle_url, tmp_path):
    source, target = tmp_path / "in.csv", tmp_path / "out.csv"
    source.write_bytes(b"age,plan\n" + b"1,x\n" * 500 + b"2,f\xfcnf\n")
    result = headrace("batch", "churn", str(source), "-o", str(target), "--url", idle_url)
    assert result.returncode == 1
    assert "line 502, byte 4" in result.stderr
    assert list(tmp_path.iterdir()) == [source]
    assert_all_cancelled(idle_url, 5)


def test_a_killed_run_can_be_repeated_at_once_and_leaves_nothing(url, idle_url, tmp_path):
    source, target = write_people(tmp_path / "in.csv", 300), tmp_path / "out.csv"
    command = [sys.executable, "-m", "headrace.cli", "batch", "churn", str(source), "-o", str(target), "--url"]
    with subprocess.Popen([*command, idle_url], stderr=subprocess.DEVNULL) as run:
        wait_until(lambda: count_waiting(idle_url) == 3)
        refused = headrace(*command[3:], idle_url)
        assert refused.returncode == 1
        assert "out.csv now; wait for it, or stop it" in refused.stderr
        assert count_waiting(idle_url) == 3, "the refused run has enqueued nothing"
        run.kill()
    assert not target.exists()
    repeated = headrace(*command[3:], url)
    assert repeated.returncode == 0, repeated.stderr
    assert len(read_csv(target)) == 300
    assert sorted(tmp_path.iterdir()) == [source, target]


def test_a_timeout_cancels_the_jobs_and_exits_4(idle_url, tmp_path):
    source, target = write_people(tmp_path / "in.csv", 300), tmp_path / "out.csv"
    result = headrace("batch", "churn", str(source), "-o", str(target), "--timeout", "0.5", "--url", idle_url)
    assert result.returncode == 4
    assert "was not written" in result.stderr
    assert list(tmp_path.iterdir()) == [source]
    assert_all_cancelled(idle_url, 3)


def assert_all_cancelled(url: str, jobs: int) -> None:
    with redis.Redis.from_url(url) as server, Client(url) as client:
        ids = [str(UUID(key.decode().removeprefix(Keys().job("")))) for key in server.keys(Keys().job("*"))]
        assert len(ids) == jobs
        assert {client.job(job).status() for job in ids} == {"cancelled"}


def test_jobs_under_way_are_bounded(idle_url):
    source = ({"age": number, "plan": "gold"} for number in range(10_000))
    rows = predict_rows(Client(idle_url), "churn", source, rows_per_job=10, in_flight=4, timeout=1)
    with pytest.raises(ResultTimeout):
        next(rows)
    assert next(source)["age"] == 5 * 10  # four blocks, and one that waits for room in the window
    assert count_waiting(idle_url) == 4
    assert_all_cancelled(idle_url, 4)


def test_a_batch_waits_while_the_queue_is_full(url):
    with Client(settings=Settings(redis_url=url, queue_limit=2)) as client:
        rows = list(predict_rows(client, "churn", [{"age": n, "plan": "x"} for n in range(300)], rows_per_job=5))
    assert [row.prediction for row in rows] == [2 * n for n in range(300)]


def test_rows_too_large_for_one_job_are_sent_in_several(url):
    long_rows = [{"age": n, "plan": "x" * 1000} for n in range(20)] + [{"age": 20, "plan": "x" * 9000}]
    with Client(settings=Settings(redis_url=url, max_job_bytes=5000)) as client:
        rows = list(predict_rows(client, "churn", long_rows))
    assert [row.prediction for row in rows[:-1]] == [2 * n for n in range(20)]
    assert "HEADRACE_MAX_JOB_BYTES" in rows[-1].error


def test_a_named_number_of_rows_is_a_job(url, idle_url, tmp_path):
    source, target = write_people(tmp_path / "in.csv", 30_000), tmp_path / "out.csv"
    options = ["-o", str(target), "--rows-per-job", "12000", "--json", "--url", url]
    result = headrace("batch", "churn", str(source), *options)
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["largest_job"] == 12_000
    assert len(result.stderr.splitlines()) == 1
    assert [float(row["prediction"]) for row in read_csv(target)] == [2 * number for number in range(30_000)]


def test_a_number_of_rows_that_a_job_cannot_hold_is_said_to_be_cut(url, tmp_path, monkeypatch):
    monkeypatch.setenv("HEADRACE_MAX_JOB_VALUES", "30000")
    source = write_people(tmp_path / "in.csv", 30_000)
    options = ["-o", str(tmp_path / "out.csv"), "--rows-per-job", "30000", "--url", url]
    result = headrace("batch", "churn", str(source), *options)
    assert result.returncode == 0, result.stderr
    assert "a job held 7,500 rows at most, not 30,000: its limits are" in result.stderr
    assert "HEADRACE_MAX_JOB_VALUES" in result.stderr
    assert len(read_csv(tmp_path / "out.csv")) == 30_000


def test_a_batch_forgets_what_it_has_read_and_keeps_what_failed(url, redis_url, tmp_path):
    source = write_people(tmp_path / "in.csv", 3000, bad_plans={7: "fail"})
    with Client(url) as client, redis.Redis.from_url(redis_url) as server:
        report = predict_file(client, "churn", source, tmp_path / "out.csv")
        assert (report.rows, report.failed) == (3000, 1)
        outcomes, records = server.keys("celery-task-meta-*"), server.keys(Keys().job("*"))
        assert len(outcomes) == len(records) == 2, "the job of 100 rows, and the job of the row"
        assert all(json.loads(stored)["status"] == "FAILURE" for stored in server.mget(outcomes))


def test_wrong_instances_from_python_fail_alone(url):
    instances = [
        {"age": 1, "plan": "x"},
        {"age": 1},
        None,
        {"age": float("nan"), "plan": "x"},
        {"age": 2, "plan": "fail"},
    ]
    with Client(url) as client:
        rows = list(predict_rows(client, "churn", instances))
    assert [row.prediction for row in rows] == [2, None, None, None, None]
    assert [row.row.line for row in rows] == [1, 2, 3, 4, 5]
    assert "feature 'plan' is missing" in rows[1].error
    assert "must be an object" in rows[2].error
    assert rows[3].error is None
    assert "the model cannot" in rows[4].error


def test_progress_is_reported_after_each_row(url, tmp_path):
    source, reports = write_people(tmp_path / "in.csv", 250, bad_plans={3: "fail"}), []
    with Client(url) as client:
        predict_file(client, "churn", source, tmp_path / "out.csv", on_progress=reports.append)
    assert reports[-1] == Progress(rows=250, failed=1, bytes_read=source.stat().st_size)


def test_a_batch_survives_outages_of_redis_while_it_submits_and_while_it_waits(tmp_path):
    with EmbeddedRedis() as server, Client(server.url) as client:
        publish_stock_contract(server.url)
        instances = [{"age": number, "plan": "gold"} for number in range(200)]
        rows = predict_rows(client, "churn", instances, rows_per_job=10, in_flight=4, timeout=60)
        server.kill()
        predicted: list[PredictedRow] = []
        batch = threading.Thread(target=lambda: predicted.extend(rows))
        batch.start()
        batch.join(0.5)  # during the outage it repeats its calls
        assert batch.is_alive()
        server.start()
        deadline = time.monotonic() + 20
        while count_waiting(server.url) < 4:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        server.kill()
        server.start()
        with start_stock_worker(server.url, tmp_path / "log"):
            batch.join(60)
    assert [row.prediction for row in predicted] == [2 * number for number in range(200)]


def test_a_batch_from_file_to_file_needs_no_standard_streams(url, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "stdin", None)
    monkeypatch.setattr(sys, "stdout", io.StringIO())  # as in a notebook: there is no `buffer`
    with Client(url) as client:
        assert predict_file(client, "churn", write_people(tmp_path / "in.csv", 3), tmp_path / "out.csv").rows == 3


def messages_of(stderr: str) -> list[str]:
    """Return the lines of a batch besides those of its progress, which it writes every few seconds."""
    return [line for line in stderr.splitlines() if "rows done" not in line]


@pytest.mark.parametrize("target", ["/dev/full", "- > /dev/full"])
def test_a_full_disk_is_one_line(url, tmp_path, target):
    source = write_people(tmp_path / "in.csv", 3)
    command = f"{sys.executable} -m headrace.cli batch churn {source} --format csv --url {url} -o {target}"
    result = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=60, env=os.environ)
    assert result.returncode == 1
    assert messages_of(result.stderr) == ["headrace: input or output: No space left on device"]


def test_a_closed_pipe_ends_the_batch_without_a_message(url, tmp_path):
    source = write_people(tmp_path / "in.csv", 20_000)
    command = f"{sys.executable} -m headrace.cli batch churn {source} -o - --format csv --url {url} | head -1"
    result = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60, env=os.environ)
    assert result.stdout == "id,age,plan,prediction,error\n"
    assert messages_of(result.stderr) == []
