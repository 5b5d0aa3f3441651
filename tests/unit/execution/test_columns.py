"""Jobs in columns within a claim: opened, logged and counted like any other."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from headrace.catalog.contract import Contract, Feature, Named, Output
from headrace.errors import InvalidInput
from headrace.wire.arrow import ArrowColumns
from headrace.wire.columns import Columns, JsonColumns
from headrace.wire.limits import JobLimits
from headrace.wire.outcome import Prediction, Success
from headrace_worker.drift.recorder import _sample_rows
from headrace_worker.execution import columns
from headrace_worker.execution.columns import open_columns
from headrace_worker.telemetry.prediction_record import redact

CONTRACT = Contract(
    model="churn",
    version="1",
    input=Named(features=(Feature(name="age", kind="number"), Feature(name="ssn", kind="string", redact=True))),
    methods={"predict": Output(shape=())},
)


def make_columns(rows: int) -> Columns:
    table = {"age": list(range(rows)), "ssn": [str(number) for number in range(rows)]}
    return open_columns(JsonColumns(table, rows), JobLimits())


def test_columns_of_json_are_opened_as_columns_of_arrow():
    opened = make_columns(2)
    assert isinstance(opened, ArrowColumns)
    assert list(opened) == [{"age": 0, "ssn": "0"}, {"age": 1, "ssn": "1"}]
    with pytest.raises(InvalidInput, match="column 'age' holds values of several types"):
        open_columns(JsonColumns({"age": [1, "x"]}, 2), JobLimits())


def test_a_worker_without_pyarrow_takes_no_columns_and_says_why(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(columns, "find_spec", lambda name: None)
    assert columns.accepted_forms() == ()
    with pytest.raises(InvalidInput, match="which this worker takes with pyarrow only"):
        make_columns(1)


def test_the_prediction_log_has_the_rows_of_columns_with_what_is_to_be_redacted():
    assert [row["age"] for row in redact(CONTRACT, make_columns(2))] == [0, 1]
    assert all(row["ssn"] not in {"0", "1"} for row in redact(CONTRACT, make_columns(2)))


@pytest.mark.parametrize(("sizes", "most_rows"), [([1000], 32), ([1] * 100, 32), ([700, 1, 299], 10), ([3], 32)])
def test_drift_counts_rows_that_are_evenly_spread_over_a_batch_and_none_that_failed(sizes, most_rows):
    jobs, outcomes, first = [], {}, 0
    for number, size in enumerate(sizes):
        numbers = list(range(first, first + size))
        first += size
        instances = open_columns(JsonColumns({"age": numbers}, size), JobLimits())
        jobs.append(
            SimpleNamespace(claimed=SimpleNamespace(job=SimpleNamespace(id=str(number))), instances=instances)
        )
        prediction = Prediction(
            model="churn", version="1", predictions=numbers, errors={0: "bad"} if size > 5 else None
        )
        outcomes[str(number)] = Success(job=str(number), prediction=prediction)
    sample = list(_sample_rows(SimpleNamespace(jobs=jobs), outcomes, most_rows))
    assert all(instance == {"age": prediction} for instance, prediction in sample)
    ages = [prediction for _, prediction in sample]
    step = -(-first // most_rows)
    failed = {sum(sizes[:number]) for number, size in enumerate(sizes) if size > 5}
    assert ages == [age for age in range(0, first, step) if age not in failed]
    assert len(ages) <= most_rows
