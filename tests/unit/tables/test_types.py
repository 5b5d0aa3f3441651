"""Tables of every type: the model is given what it is given for jobs of one row each, and errors are the same."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from headrace_worker.models.loader import LoadedModel
from headrace_worker.tables.check import check_table
from tests.support.table_versions import Shown, load_version, predict_rows_alone, predict_table_alike

ROWS = 6
_DAY = pd.Timestamp("2026-01-02T03:04:05.678901")
_TIMES = pd.Series([_DAY + timedelta(hours=7 * number) for number in range(ROWS)])
_GAPS = [None if number == 3 else number for number in range(ROWS)]
_WORDS = ["basic", "gold", "Größe", "", "team", "gold"]


def _frame() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "i64": np.arange(ROWS) - 2,
            "i8": np.arange(ROWS).astype(np.int8),
            "u16": np.arange(ROWS).astype(np.uint16),
            "Int64": pd.array(_GAPS, dtype="Int64"),
            "f64": np.linspace(-1, 1, ROWS),
            "f32": np.linspace(-1, 1, ROWS).astype(np.float32),
            "gaps": pd.array(_GAPS, dtype=float),
            "Float64": pd.array(_GAPS, dtype="Float64"),
            "bool": np.arange(ROWS) % 2 == 0,
            "boolean": pd.array([True, None, False, True, None, False], dtype="boolean"),
            "str": pd.array(_WORDS, dtype="str"),
            "str gaps": pd.array([None, *_WORDS[1:]], dtype="str"),
            "object": pd.Series(_WORDS, dtype=object),
            "object gaps": pd.Series([np.nan, *_WORDS[1:]], dtype=object),
            "string": pd.array(_WORDS, dtype="string"),
            "arrow": pd.array(_WORDS, dtype=pd.ArrowDtype(pa.string())),
            "size": pd.Categorical(list("smlsml"), categories=["s", "m", "l"], ordered=True),
            "size gaps": pd.Categorical(["s", None, "l", "s", "m", "l"], categories=["s", "m", "l"]),
            "grade": pd.Categorical([3, 1, 2, 3, 1, 2], categories=[3, 1, 2]),
            "rate": pd.Categorical([0.5, 1.0, 2.5, 0.5, 1.0, 2.5], categories=[0.5, 1.0, 2.5]),
            "flag": pd.Categorical([True, False] * 3, categories=[True, False]),
            "us": _TIMES,
            "s": _TIMES.astype("datetime64[s]"),
            "us gaps": _TIMES.mask(_TIMES.index == 2),
            "ns": _TIMES.astype("datetime64[ns]") + pd.Timedelta(7, "ns"),
            "berlin": _TIMES.dt.tz_localize("Europe/Berlin"),
            "utc ns": _TIMES.astype("datetime64[ns]").dt.tz_localize("UTC"),
            "day": pd.Series([moment.date() for moment in _TIMES], dtype=object),
        }
    )


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    frame = pd.concat([_frame()] * 4, ignore_index=True)
    return load_version(tmp_path_factory.mktemp("shown"), Shown().fit(frame), frame, trust_pickle=True)


def _table() -> pa.Table:
    return pa.Table.from_pandas(_frame(), preserve_index=False)


def _replace(name: str, values: Any) -> pa.Table:
    table = _table()
    column = values if isinstance(values, pa.Array | pa.ChunkedArray) else pa.array(values)
    return table.set_column(table.column_names.index(name), name, column)


def _assert_same(version: LoadedModel, table: pa.Table) -> list[Any]:
    outcomes = predict_table_alike(version, "predict", table)
    assert outcomes == predict_rows_alone(version, "predict", table)
    return outcomes


def test_columns_of_all_usual_types_stay_columns(shown: LoadedModel) -> None:
    checked = check_table(shown.contract, _table())
    assert (checked.coerced, checked.errors) == ({}, {})
    assert shown.predict_table("predict", checked.accepted) is not None
    assert all(isinstance(text, str) for text in _assert_same(shown, _table()))


_MOMENT = datetime(1969, 12, 31, 23, 59, 59, 999_999)
_ODD: list[tuple[str, Any]] = [
    ("i64", pa.array([2**53 + 1, -(2**63), 2**63 - 1, 0, 1, None])),
    ("i64", pa.array([2**64 - 1, 2**63, 3, 4, 5, 6], pa.uint64())),
    ("i64", [1.0, 2.5, float("nan"), float("inf"), 1e300, None]),
    ("i64", pa.array([1, 2, 3, 4, 5, 6], pa.float16())),
    ("i64", [Decimal("3.00"), Decimal("3.50"), None, Decimal(2**60 + 1), Decimal(-1), Decimal(0)]),
    ("i64", [True, False, None, True, False, True]),
    ("i64", ["1", "2", "3", "4", "5", None]),
    ("i8", [1, 127, 128, -129, 2**40, None]),
    ("u16", [0, -1, 65535, 65536, 3, 4]),
    ("Int64", [2**53 + 1, None, -1, 2**62, 0, 1]),
    ("f64", [2**53 + 1, 2**60 + 1, -1, 0, None, 7]),
    ("f64", pa.array([1.5, float("nan"), float("-inf"), None, -0.0, 1e-320], pa.float64())),
    ("f64", pa.array([0.1, 0.2, 0.3, 0.4, None, 0.6], pa.float32())),
    ("f64", [Decimal("0.1"), Decimal("0.30"), Decimal("1234567890123456.789"), None, Decimal("-7"), Decimal(0)]),
    ("f64", pa.array([Decimal("0.1"), None, *map(Decimal, (3, 4, 5, 6))], pa.decimal256(50, 9))),
    ("f64", [datetime(2026, 1, 1)] * 6),
    ("f64", pa.nulls(6)),
    ("f64", [[1.0]] * 6),
    ("f64", [{"x": 1.0}] * 6),
    ("f64", [b"1"] * 6),
    ("f32", [1e300, 0.1, 3.4e38, 1, 2, None]),
    ("gaps", [float("nan"), None, 1, 2, float("inf"), 5]),
    ("gaps", pa.nulls(6, pa.float64())),
    ("Float64", [float("nan"), None, 1.5, 2, float("inf"), 5]),
    ("bool", [True, None, False, True, True, True]),
    ("bool", [1, 0, 1, 0, 1, 0]),
    ("bool", ["true"] * 6),
    ("boolean", [None, True, False, None, None, None]),
    ("str", pa.array(_WORDS).dictionary_encode()),
    ("str", pa.array([*_WORDS[:5], None]).dictionary_encode()),
    ("str", pa.array([*_WORDS[:5], None], pa.large_string())),
    ("str", pa.array([*_WORDS[:5], None], pa.string_view())),
    ("str", pc.run_end_encode(pa.array(["a", "a", "b", None, "b", "b"]))),
    ("str", [1, 2, 3, 4, 5, 6]),
    ("str", pa.array([b"a", b"\xff", b"c", b"d", None, b"f"]).view(pa.string())),
    ("str", pa.array([b"a"] * 6)),
    ("str gaps", pa.array([None, "a", "b", None, "", "c"]).dictionary_encode()),
    ("str gaps", pa.DictionaryArray.from_arrays(pa.array([0, 1, 1, 0, None, 0]), pa.array(["a", None]))),
    ("object", pa.array(["a", None, "NA", "nan", "", "\0"], pa.large_string())),
    ("object gaps", ["a", None, "NA", "nan", "", "\0"]),
    ("object gaps", pa.array(["a", None, "NA", "nan", "", "\0"]).dictionary_encode()),
    ("string", ["a", None, "b", "c", "d", "e"]),
    ("arrow", pa.array(["a", "b", "c", "d", None, "e"], pa.large_string())),
    ("size", ["s", "m", "xl", None, "", "S"]),
    ("size", pa.DictionaryArray.from_arrays(pa.array([0, 1, 2, 2, 0, 1], pa.int8()), pa.array(["l", "s", "m"]))),
    ("size", pa.DictionaryArray.from_arrays(pa.array([0, 1, 2, 2, 0, 1], pa.int8()), pa.array(["l", "s", "x"]))),
    ("size", pa.DictionaryArray.from_arrays(pa.array([0, 1, None, 1, 0, 1], pa.int8()), pa.array(["l", None]))),
    ("size", [1, 2, 3, 4, 5, 6]),
    ("size gaps", ["s", None, "m", None, None, "l"]),
    ("size gaps", pa.array(["s", None, "m", None, "x", "l"]).dictionary_encode()),
    ("grade", [3, 1, 4, None, 2, 2**60]),
    ("grade", [3.0, 1.5, float("nan"), None, float("inf"), 2.0]),
    ("grade", ["3"] * 6),
    ("grade", [True] * 6),
    ("rate", [0.5, 1, 2.5, 2.0, None, float("nan")]),
    ("rate", [1, 2, 1, 2, 1, 2]),
    ("flag", [True, False, None, True, True, False]),
    ("flag", [1, 0, 1, 0, 1, 0]),
    ("us", pa.array([_MOMENT, None, *_TIMES[2:]], pa.timestamp("us"))),
    ("us", pa.array([-1, -999, -1_000, -1_001, 0, 999], pa.timestamp("ns"))),
    ("us", pa.array([-1, 0, 253402300799, 253402300800, -62135596800, -62135596801], pa.timestamp("s"))),
    ("us", pa.array([-1, 0, 2**62, -(2**63), 5, 6], pa.timestamp("ms"))),
    ("us", pa.array([date(2026, 2, 28)] * 6)),
    ("us", pa.array([date(2026, 2, 28)] * 6, pa.date64())),
    ("us", pa.array(_TIMES.dt.tz_localize("UTC"))),
    ("us", ["2026-01-02T03:04:05", "2026-01-02 03:04:05.5", "2026-02-29", "2024-02-29T00:00", "x", None]),
    ("us", ["2026-01-02T03:04:05Z", "2026-01-02T03:04:05.1234567", "0999-01-01T00:00:00", "", "NaT", "2026"]),
    ("us", [1, 2, 3, 4, 5, 6]),
    ("us gaps", pa.array([None, *_TIMES[1:]], pa.timestamp("us"))),
    ("us gaps", ["2026-01-02T03:04:05", None, "2026-01-02T03:04:05.123456", None, None, "2026-01-02"]),
    ("us gaps", pa.nulls(6)),
    ("s", pa.array([-1_500_000, -1, 0, 1, 1_999_999, 7], pa.timestamp("us"))),
    ("ns", pa.array([-1, -999, 7, 2**62, -(2**62), 0], pa.timestamp("ns"))),
    ("ns", pa.array([-9214560000, 9214560000, 9223372037, 0, 1, 2], pa.timestamp("s"))),
    ("ns", ["2026-01-02T03:04:05.123456789", "1500-01-01T00:00:00", "2026-01-02", "2300-01-01", "", None]),
    ("berlin", pa.array(_TIMES.dt.tz_localize("America/New_York"))),
    ("berlin", pa.array([0, 1, 2, 3, None, 5], pa.timestamp("ms", tz="+05:30"))),
    ("berlin", pa.array([0, 1, 2, 3, None, 5], pa.timestamp("ms", tz="Nowhere/Land"))),
    ("berlin", pa.array(_TIMES)),
    ("berlin", ["2026-01-02T03:04:05Z", "2026-01-02T03:04:05+01:00", "2026-01-02T03:04", "x", None, "2026"]),
    ("utc ns", pa.array(_TIMES.dt.tz_localize("Europe/Berlin"))),
    ("day", pa.array([date(2026, 2, 28), date.min, date.max, None, date(1969, 1, 1), date(2000, 2, 29)])),
    ("day", pa.array([-(2**31), 2**31 - 1, 0, 1, 2, 3], pa.date32())),
    ("day", pa.array([0, 86400, 86401, -86400, -1, None], pa.timestamp("s"))),
    ("day", ["2026-01-02", "2026-02-29", "2024-02-29", "2026-01-02T00:00:00", "2026-01-02T00:00:01", None]),
]  # fmt: skip


@pytest.mark.parametrize(("name", "values"), _ODD, ids=range(len(_ODD)))
def test_an_odd_column_gives_each_row_what_a_job_of_the_row_alone_gets(
    shown: LoadedModel, name: str, values: Any
) -> None:
    _assert_same(shown, _replace(name, values))


def test_a_table_of_several_chunks_and_a_slice_of_one_are_read_from_their_own_rows(shown: LoadedModel) -> None:
    table = _table()
    outcomes = _assert_same(shown, table)
    assert _assert_same(shown, table.slice(2, 3)) == outcomes[2:5]
    assert _assert_same(shown, pa.concat_tables([table.slice(4), table.slice(1, 2)])) == [
        *outcomes[4:],
        *outcomes[1:3],
    ]
    batch = table.combine_chunks().to_batches()[0].slice(1, 4)
    assert predict_table_alike(shown, "predict", batch) == outcomes[1:5]


def test_a_table_without_rows_has_no_predictions_and_no_errors(shown: LoadedModel) -> None:
    assert predict_table_alike(shown, "predict", _table().slice(0, 0)) == []
    assert predict_table_alike(shown, "predict", _table().schema.empty_table()) == []
