"""The prediction log keeps what it was asked to keep, in bounded room, and never fails what it tells of."""

from __future__ import annotations

import json
import re
import time
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
from headrace_worker.telemetry.metrics import LOG_RECORDS, LOG_RECORDS_DROPPED, MetricDelta
from headrace_worker.telemetry.prediction_log import PredictionLog
from headrace_worker.telemetry.prediction_record import Levels, Record, make_records, parse_levels, redact
from headrace_worker.telemetry.prediction_sinks import (
    COLUMNS,
    LineFiles,
    LogFolder,
    ParquetFiles,
    check_destination,
)
from headrace_worker.transport.leases import Claim, Lease
from tests.support import ROOT
from tests.support.claim_reports import batch_run, claim_report, claimed_job

TAKES = Named(features=(Feature(name="age", kind="number"), Feature(name="name", kind="string", redact=True)))


def contract(takes: Any = TAKES) -> Contract:
    return Contract(model="churn", version="3", input=takes, methods={"predict": Output(shape=())})


def report(*names: str, failed: tuple[str, ...] = (), model: str = "churn") -> ClaimReport:
    """Of jobs of one instance; those failed were never run."""
    jobs = [Job(id=name, model=model, instances=[{"age": 41, "name": "Xyzzy"}]) for name in (*names, *failed)]
    manifest = SimpleNamespace(name=model, version="3", runtime="sklearn")
    served: Any = SimpleNamespace(manifest=manifest, contract=contract())
    claimed = [claimed_job(job) for job in jobs]
    outcomes: list[Any] = [
        Success(job=name, prediction=Prediction(model=model, version="3", predictions=[0.5])) for name in names
    ]
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
        [batch_run(claimed[: len(names)], served, finished_at=0.01)] if names else [],
        not_run=claimed[len(names) :],
        outcomes=outcomes,
        times=(0.0, 0.01, 0.02),
    )


def kept(setting: str, one: ClaimReport) -> list[Record]:
    return list(make_records(one, parse_levels(setting)))


@pytest.mark.parametrize("setting", ["", "off", "fraud=full", "churn=off,*=full", "0"])
def test_nothing_is_kept_that_was_not_asked_for(setting: str) -> None:
    assert kept(setting, report("a")) == []


def test_a_record_tells_what_ran_and_how_without_inputs_and_outputs() -> None:
    ran, refused = kept("metadata", report("a", failed=("b",)))
    assert (ran.job, ran.model, ran.version, ran.state, ran.rows) == ("a", "churn", "3", "success", 1)
    assert (ran.runtime, ran.method, ran.predict_ms, ran.batch_rows) == ("sklearn", "predict", 10.0, 1)
    assert (refused.state, refused.reason, refused.version) == ("failure", "bad input", None)
    assert "Xyzzy" not in str((ran, refused))
    assert (ran.instances, ran.predictions) == (None, None)


def test_what_the_contract_redacts_is_kept_nowhere() -> None:
    (record,) = kept("churn=full", report("a"))
    assert record.instances == [{"age": 41, "name": "<redacted>"}]
    assert record.predictions == [0.5]


def test_inputs_that_nobody_has_checked_are_not_kept() -> None:
    (record,) = kept("full", report(failed=("b",)))
    assert record.instances is None


@pytest.mark.parametrize("takes", [Array(shape=(1,), redact=True), Text(redact=True)])
def test_an_array_or_text_is_redacted_whole(takes: Any) -> None:
    assert redact(contract(takes), ["Xyzzy"]) == ["<redacted>"]


def test_a_share_keeps_the_same_jobs_everywhere() -> None:
    names = [f"job-{n}" for n in range(2000)]
    some = {record.job for record in kept("0.1", report(*names))}
    assert 120 < len(some) < 280
    assert {record.job for record in kept("churn=0.1", report(*reversed(names)))} == some


@pytest.mark.parametrize("setting", ["all", "churn=", "churn=2", "-1", "a b=full", "=full", "nan", "churn=1e9"])
def test_a_level_that_is_none_is_refused(setting: str) -> None:
    with pytest.raises(SettingError, match="HEADRACE_PREDICTION_LOG"):
        parse_levels(setting)


@pytest.mark.parametrize("to", ["", "redis:x", "file", "file:", "s3:bucket", "/var/log"])
def test_a_sink_that_is_none_is_refused(to: str) -> None:
    with pytest.raises(SettingError, match="HEADRACE_PREDICTION_LOG_TO"):
        check_destination(to)


def many(count: int = 3) -> list[Record]:
    return kept("full", report(*(f"j{n}" for n in range(count))))


def folder(path: Path, suffix: str, most: int = 10**9) -> LogFolder:
    return LogFolder(path / "log", "celery@host/../x", suffix, most)


def test_lines_can_be_read_as_they_are_written(tmp_path: Path) -> None:
    sink = LineFiles(folder(tmp_path, ".jsonl"))
    sink.write(many(2))
    sink.write(many(1))
    (file,) = (tmp_path / "log").iterdir()
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [line["job"] for line in lines] == ["j0", "j1", "j0"]
    assert lines[0]["instances"] == [{"age": 41, "name": "<redacted>"}]
    assert file.stat().st_mode & 0o077 == 0
    sink.close()


def test_files_of_lines_roll_and_the_oldest_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headrace_worker.telemetry.prediction_sinks._LINE_FILE_BYTES", 1)
    (tmp_path / "log").mkdir()
    (tmp_path / "log" / "notes.txt").write_text("mine")
    size = len(msgspec.json.encode(many(1)[0])) + 1
    sink = LineFiles(folder(tmp_path, ".jsonl", most=3 * size))
    for _ in range(10):
        sink.write(many(1))
    sink.close()
    files = sorted(file.name for file in (tmp_path / "log").glob("*.jsonl"))
    assert len(files) == 4
    assert files[-1].endswith("-9.jsonl") or any(name.endswith("-10.jsonl") for name in files)
    assert (tmp_path / "log" / "notes.txt").exists()


def test_parquet_files_have_the_columns_of_the_schema(tmp_path: Path) -> None:
    sink = ParquetFiles(folder(tmp_path, ".parquet"))
    sink.write(many(3))
    sink.idle()
    assert not (tmp_path / "log").exists()
    sink.close()
    (file,) = (tmp_path / "log").iterdir()
    table = parquet.read_table(file)
    assert table.column_names == list(COLUMNS) == list(Record.__struct_fields__)
    assert table["job"].to_pylist() == ["j0", "j1", "j2"]
    assert json.loads(table["instances"][0].as_py()) == [{"age": 41, "name": "<redacted>"}]


class Sent:
    """Adds tallies up."""

    def __init__(self) -> None:
        self.sum = MetricDelta(counters={}, histograms={})

    def __call__(self, tally: MetricDelta) -> None:
        self.sum.merge(tally)

    def __getitem__(self, metric: Any) -> float:
        return self.sum.counters.get((metric.name, ("churn",)), 0)


def soon(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture
def sent() -> Sent:
    return Sent()


@pytest.fixture
def running() -> Iterator[Callable[..., PredictionLog]]:
    started: list[PredictionLog] = []

    def start(sink: Any, sent: Sent, **options: Any) -> PredictionLog:
        started.append(PredictionLog(Levels({"*": 1.0}), lambda _: sink, sent, **options))
        return started[-1]

    yield start
    for one in started:
        one.close()


def test_a_process_that_ends_writes_what_waits(
    tmp_path: Path, sent: Sent, running: Callable[..., PredictionLog]
) -> None:
    log = running(ParquetFiles(folder(tmp_path, ".parquet")), sent)
    for _ in range(20):
        log.on_claim_finished(report("a", "b"))
    log.close()
    (file,) = (tmp_path / "log").iterdir()
    assert parquet.read_table(file).num_rows == 40
    assert (sent[LOG_RECORDS], sent[LOG_RECORDS_DROPPED]) == (40, 0)


def test_a_full_disk_costs_records_and_is_counted_and_said_once(
    tmp_path: Path, sent: Sent, running: Callable[..., PredictionLog], caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "log").write_text("in the way")
    log = running(LineFiles(folder(tmp_path, ".jsonl")), sent)
    for _ in range(5):
        log.on_claim_finished(report("a", "b"))
    soon(lambda: sent[LOG_RECORDS_DROPPED] == 10)
    assert len(caplog.records) == 1
    (tmp_path / "log").unlink()
    log.on_claim_finished(report("a"))
    soon(lambda: sent[LOG_RECORDS] == 1)


def test_a_sink_that_hangs_blocks_nothing_and_what_finds_no_room_is_counted(
    sent: Sent, running: Callable[..., PredictionLog]
) -> None:
    class Hanging:
        go = False

        def write(self, _: Any) -> None:
            soon(lambda: self.go)

        idle = close = lambda self: None

    sink = Hanging()
    one = report(*(f"j{n}" for n in range(10)))
    log = running(sink, sent, most_bytes=sum(map(len, one.claim.queued_messages)) * 3)
    began = time.monotonic()
    for _ in range(10):
        log.on_claim_finished(one)
    assert time.monotonic() - began < 1
    soon(lambda: sent[LOG_RECORDS_DROPPED] >= 60)
    sink.go = True
    soon(lambda: sent[LOG_RECORDS] + sent[LOG_RECORDS_DROPPED] == 100)


def test_the_settings_have_a_default_that_keeps_nothing() -> None:
    assert parse_levels(WorkerSettings().prediction_log).by_model == {}
    check_destination(WorkerSettings().prediction_log_to)


def test_every_field_of_a_record_stands_in_the_reference_and_no_other_does() -> None:
    page = ROOT / "docs" / "reference" / "prediction-log.md"
    schema = page.read_text().partition("## Schema")[2]
    rows = re.findall(r"^\| (`.*?`) \|", schema, re.MULTILINE)
    assert [name for row in rows for name in re.findall(r"`(\w+)`", row)] == list(Record.__struct_fields__)
