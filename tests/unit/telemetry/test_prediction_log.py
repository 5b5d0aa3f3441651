"""The prediction log: it logs what the setting says, in bounded space, and never fails a prediction."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from pyarrow import parquet

from headrace.catalog.contract import Array, Contract, Feature, Named, Output, Text
from headrace.errors import SettingError
from headrace.wire.message import Job, encode_message
from headrace.wire.outcome import Failure, Prediction, Success
from headrace_worker.execution.report import ClaimReport
from headrace_worker.settings import WorkerSettings
from headrace_worker.telemetry.health import Health
from headrace_worker.telemetry.metrics import LOG_RECORDS, LOG_RECORDS_DROPPED, MetricDelta
from headrace_worker.telemetry.pool_loops import PoolLoop
from headrace_worker.telemetry.prediction_log import PredictionLog
from headrace_worker.telemetry.prediction_record import Levels, Record, make_records, parse_levels, redact
from headrace_worker.telemetry.prediction_sinks import (
    COLUMNS,
    LineFiles,
    LogFolder,
    ParquetFiles,
    check_destination,
)
from headrace_worker.transport.claims import Claim, Lease
from tests.support import ROOT
from tests.support.claim_reports import batch_run, claim_report, claimed_job
from tests.support.fake_clock import FakeClock
from tests.support.waiting import wait_until

SIGNATURE = Named(features=(Feature(name="age", kind="number"), Feature(name="name", kind="string", redact=True)))


def contract(signature: Any = SIGNATURE) -> Contract:
    return Contract(model="churn", version="3", input=signature, methods={"predict": Output(shape=())})


def report(*succeeded: str, failed: tuple[str, ...] = (), model: str = "churn") -> ClaimReport:
    """Return the report of jobs of one instance each; the `failed` jobs did not run."""
    jobs = [Job(id=name, model=model, instances=[{"age": 41, "name": "Xyzzy"}]) for name in (*succeeded, *failed)]
    manifest = SimpleNamespace(name=model, version="3", runtime="sklearn")
    served: Any = SimpleNamespace(manifest=manifest, contract=contract())
    claimed = [claimed_job(job) for job in jobs]
    prediction = Prediction(model=model, version="3", predictions=[0.5])
    outcomes: list[Any] = [Success(job=name, prediction=prediction) for name in succeeded]
    outcomes += [
        Failure(job=name, reason="bad input", error="InvalidInput", module="headrace", message="no")
        for name in failed
    ]
    at_ms = int(datetime(2030, 1, 1, tzinfo=UTC).timestamp() * 1000)
    return claim_report(
        Claim(
            lease=Lease(name="w/1", queue=f"predict.{model}", origins=()),
            queued_messages=[encode_message(job) for job in jobs],
            claimed_ms=at_ms,
            claimed_monotonic=0.0,
        ),
        [batch_run(claimed[: len(succeeded)], served, finished_at=0.01)] if succeeded else [],
        not_run=claimed[len(succeeded) :],
        outcomes=outcomes,
        times=(0.0, 0.01, 0.02),
    )


def records(setting: str, report: ClaimReport) -> list[Record]:
    return list(make_records(report, parse_levels(setting)))


@pytest.mark.parametrize("setting", ["", "off", "fraud=full", "churn=off,*=full", "0"])
def test_a_model_that_is_off_has_no_records(setting: str) -> None:
    assert records(setting, report("a")) == []


def test_a_record_of_metadata_has_no_inputs_and_outputs() -> None:
    ran, refused = records("metadata", report("a", failed=("b",)))
    assert (ran.job, ran.model, ran.version, ran.state, ran.instance_count) == ("a", "churn", "3", "success", 1)
    assert (ran.runtime, ran.method, ran.predict_ms, ran.batch_instances) == ("sklearn", "predict", 10.0, 1)
    assert (refused.state, refused.reason, refused.version) == ("failure", "bad input", None)
    assert "Xyzzy" not in str((ran, refused))
    assert (ran.instances, ran.predictions) == (None, None)


def test_a_feature_that_the_contract_redacts_is_not_logged() -> None:
    (record,) = records("churn=full", report("a"))
    assert record.instances == [{"age": 41, "name": "<redacted>"}]
    assert record.predictions == [0.5]


def test_inputs_that_were_not_checked_against_the_contract_are_not_logged() -> None:
    (record,) = records("full", report(failed=("b",)))
    assert record.instances is None


@pytest.mark.parametrize("signature", [Array(shape=(1,), redact=True), Text(redact=True)])
def test_an_array_or_text_is_redacted_whole(signature: Any) -> None:
    assert redact(contract(signature), ["Xyzzy"]) == ["<redacted>"]


def test_a_share_selects_the_same_jobs_in_every_worker() -> None:
    jobs = [f"job-{number}" for number in range(2000)]
    logged = {record.job for record in records("0.1", report(*jobs))}
    assert 120 < len(logged) < 280
    assert {record.job for record in records("churn=0.1", report(*reversed(jobs)))} == logged


@pytest.mark.parametrize("setting", ["all", "churn=", "churn=2", "-1", "a b=full", "=full", "nan", "churn=1e9"])
def test_an_invalid_level_is_refused(setting: str) -> None:
    with pytest.raises(SettingError, match="HEADRACE_PREDICTION_LOG"):
        parse_levels(setting)


@pytest.mark.parametrize("destination", ["", "redis:x", "file", "file:", "s3:bucket", "/var/log"])
def test_an_invalid_destination_is_refused(destination: str) -> None:
    with pytest.raises(SettingError, match="HEADRACE_PREDICTION_LOG_TO"):
        check_destination(destination)


def full_records(count: int = 3) -> list[Record]:
    return records("full", report(*(f"j{number}" for number in range(count))))


def folder(path: Path, suffix: str, max_bytes: int = 10**9) -> LogFolder:
    return LogFolder(path / "log", "celery@host/../x", suffix, max_bytes)


def test_lines_can_be_read_as_soon_as_they_are_written(tmp_path: Path) -> None:
    sink = LineFiles(folder(tmp_path, ".jsonl"))
    sink.write(full_records(2))
    sink.write(full_records(1))
    (file,) = (tmp_path / "log").iterdir()
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [line["job"] for line in lines] == ["j0", "j1", "j0"]
    assert lines[0]["instances"] == [{"age": 41, "name": "<redacted>"}]
    assert file.stat().st_mode & 0o077 == 0
    sink.close()


def test_full_files_of_lines_are_followed_by_new_ones_and_the_oldest_are_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headrace_worker.telemetry.prediction_sinks._LINE_FILE_BYTES", 1)
    (tmp_path / "log").mkdir()
    (tmp_path / "log" / "notes.txt").write_text("another file")
    size = len(msgspec.json.encode(full_records(1)[0])) + 1
    sink = LineFiles(folder(tmp_path, ".jsonl", max_bytes=3 * size))
    for _ in range(10):
        sink.write(full_records(1))
    sink.close()
    files = sorted(file.name for file in (tmp_path / "log").glob("*.jsonl"))
    assert len(files) == 4
    assert files[-1].endswith("-9.jsonl") or any(name.endswith("-10.jsonl") for name in files)
    assert (tmp_path / "log" / "notes.txt").exists()


def test_parquet_files_have_the_columns_of_the_schema(tmp_path: Path) -> None:
    sink = ParquetFiles(folder(tmp_path, ".parquet"))
    sink.write(full_records(3))
    sink.idle()
    assert not (tmp_path / "log").exists()
    sink.close()
    (file,) = (tmp_path / "log").iterdir()
    table = parquet.read_table(file)
    assert table.column_names == list(COLUMNS) == list(Record.__struct_fields__)
    assert table["job"].to_pylist() == ["j0", "j1", "j2"]
    assert json.loads(table["instances"][0].as_py()) == [{"age": 41, "name": "<redacted>"}]


class Totals:
    """The sum of the deltas that were sent, by metric."""

    def __init__(self) -> None:
        self.delta = MetricDelta(counters={}, histograms={})

    def __call__(self, delta: MetricDelta) -> None:
        self.delta.merge(delta)

    def __getitem__(self, metric: Any) -> float:
        return self.delta.counters.get((metric.name, ("churn",)), 0)


@pytest.fixture
def totals() -> Totals:
    return Totals()


@pytest.fixture
def start_log() -> Iterator[Callable[..., PredictionLog]]:
    """A function that starts a log of all jobs; the logs are closed after the test."""
    logs: list[PredictionLog] = []

    def start(sink: Any, totals: Totals, **options: Any) -> PredictionLog:
        options.setdefault("work_clock", PoolLoop("prediction-log", late_after=60, pids=tuple).work_clock())
        logs.append(PredictionLog(Levels({"*": 1.0}), lambda _: sink, totals, **options))
        return logs[-1]

    yield start
    for log in logs:
        log.close()


def test_a_process_that_ends_writes_its_queue(
    tmp_path: Path, totals: Totals, start_log: Callable[..., PredictionLog]
) -> None:
    log = start_log(ParquetFiles(folder(tmp_path, ".parquet")), totals)
    for _ in range(20):
        log.on_claim_finished(report("a", "b"))
    log.close()
    (file,) = (tmp_path / "log").iterdir()
    assert parquet.read_table(file).num_rows == 40
    assert (totals[LOG_RECORDS], totals[LOG_RECORDS_DROPPED]) == (40, 0)


def test_records_that_cannot_be_written_are_dropped_and_counted_and_logged_once(
    tmp_path: Path, totals: Totals, start_log: Callable[..., PredictionLog], caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "log").write_text("a file in place of the folder")
    log = start_log(LineFiles(folder(tmp_path, ".jsonl")), totals)
    for _ in range(5):
        log.on_claim_finished(report("a", "b"))
    wait_until(lambda: totals[LOG_RECORDS_DROPPED] == 10)
    assert len(caplog.records) == 1
    (tmp_path / "log").unlink()
    log.on_claim_finished(report("a"))
    wait_until(lambda: totals[LOG_RECORDS] == 1)


def test_a_sink_that_hangs_does_not_block_and_the_records_beyond_the_queue_are_dropped_and_counted(
    totals: Totals, start_log: Callable[..., PredictionLog]
) -> None:
    class HangingSink:
        released = returned = False

        def write(self, _: Any) -> None:
            wait_until(lambda: self.released)
            self.returned = True

        idle = close = lambda self: None

    sink = HangingSink()
    claim = report(*(f"j{number}" for number in range(10)))
    log = start_log(sink, totals, max_bytes=sum(map(len, claim.claim.queued_messages)) * 3)
    for _ in range(10):
        log.on_claim_finished(claim)
    assert not sink.returned
    wait_until(lambda: totals[LOG_RECORDS_DROPPED] >= 60)
    sink.released = True
    wait_until(lambda: totals[LOG_RECORDS] + totals[LOG_RECORDS_DROPPED] == 100)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("ends", [False, True])
def test_the_worker_is_not_ready_while_the_thread_of_the_log_is_dead_or_blocked(
    totals: Totals, start_log: Callable[..., PredictionLog], ends: bool
) -> None:
    reached, released = threading.Event(), threading.Event()

    class Sink:
        def write(self, _: Any) -> None:
            reached.set()
            if ends:
                raise SystemExit
            assert released.wait(20)

        idle = close = lambda self: None

    clock = FakeClock()
    health, loop = Health(clock), PoolLoop("prediction-log", late_after=120, pids=tuple, clock=clock)
    health.mark_ready()
    health.add_loop(loop)
    log = start_log(Sink(), totals, work_clock=loop.work_clock())
    clock.advance(1000)
    assert health.status().ready
    for _ in range(2):
        log.on_claim_finished(report("a"))
    assert reached.wait(10)
    assert health.status().ready
    clock.advance(121)
    assert not health.status().ready
    assert "the loop `prediction-log` of a pool process has done nothing for 121 s" in health.status().reason
    if not ends:
        released.set()
        wait_until(lambda: health.status().ready)


def test_by_default_nothing_is_logged() -> None:
    assert parse_levels(WorkerSettings().prediction_log).by_model == {}
    check_destination(WorkerSettings().prediction_log_to)


def test_the_reference_lists_every_field_of_a_record_and_no_other() -> None:
    page = ROOT / "docs" / "reference" / "prediction-log.md"
    schema = page.read_text().partition("## Schema")[2]
    rows = re.findall(r"^\| (`.*?`) \|", schema, re.MULTILINE)
    assert [name for row in rows for name in re.findall(r"`(\w+)`", row)] == list(Record.__struct_fields__)
