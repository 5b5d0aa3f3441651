"""Datetimes and dates are texts of ISO 8601 on the wire, and a contract says whether they have a zone."""

from __future__ import annotations

import datetime as dt
import re
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.catalog.contract import Contract, Feature, Kind, Named, Output
from headrace.catalog.contract_diff import compare_contracts
from headrace.catalog.datetimes import PLAIN_DATE, PLAIN_DATETIME, PLAIN_INSTANT, parse_datetime, parse_nanoseconds
from headrace.catalog.instance_types import instance_types
from headrace.catalog.validation import check_instances
from headrace.errors import InvalidInput

BERLIN = dt.timezone(dt.timedelta(hours=1))
CLOCK, ZONED = "datetime64[us]", "datetime64[us, Europe/Berlin]"


def contract(kind: Kind = "datetime", dtype: str | None = CLOCK, *, nullable: bool = False) -> Contract:
    feature = Feature(name="at_time", kind=kind, dtype=dtype, nullable=nullable)
    return Contract(
        model="m", version="1", input=Named(features=(feature,)), methods={"predict": Output(shape=())}
    )


def check(takes: Contract, value: Any) -> Any:
    return check_instances(takes, [{"at_time": value}])[0]["at_time"]


@pytest.mark.parametrize(
    ("dtype", "value", "text"),
    [
        (CLOCK, "2026-01-02T03:04:05", "2026-01-02T03:04:05"),
        (CLOCK, "2024-02-29 03:04", "2024-02-29 03:04"),
        (CLOCK, "2026-01-02", "2026-01-02"),
        (CLOCK, dt.datetime(2026, 1, 2, 3, 4, 5, 6), "2026-01-02T03:04:05.000006"),
        (CLOCK, dt.date(2026, 1, 2), "2026-01-02"),
        (CLOCK, pd.Timestamp("2026-01-02T03:04:05.123456789"), "2026-01-02T03:04:05.123456789"),
        (CLOCK, np.datetime64("2026-01-02T03:04:05", "ns"), "2026-01-02T03:04:05.000000000"),
        (CLOCK, np.datetime64("2026-01-02T03", "h"), "2026-01-02T03"),
        (CLOCK, {"__type__": "datetime", "__value__": "2026-01-02T03:04:05"}, "2026-01-02T03:04:05"),
        (ZONED, "2026-01-02T03:04:05Z", "2026-01-02T03:04:05Z"),
        (ZONED, "2026-01-02t03:04:05,5+0100", "2026-01-02t03:04:05,5+0100"),
        (ZONED, dt.datetime(2026, 1, 2, 3, tzinfo=BERLIN), "2026-01-02T02:00:00+00:00"),
        (ZONED, pd.Timestamp("2026-01-02T03:04:05", tz="Europe/Berlin"), "2026-01-02T02:04:05+00:00"),
    ],
)
def test_datetimes_of_every_library_are_sent_as_text(dtype: str, value: Any, text: str) -> None:
    assert check(contract(dtype=dtype), value) == text


@pytest.mark.parametrize("value", ["2026-01-02", dt.date(2026, 1, 2), pd.Timestamp("2026-01-02")])
def test_dates_are_sent_as_text(value: Any) -> None:
    assert check(contract("date"), value) == "2026-01-02"


@pytest.mark.parametrize(
    ("takes", "value", "problem"),
    [
        (contract(), "2026-02-30T00:00:00", "must be a datetime (ISO 8601), got another text"),
        (contract(), "02.01.2026", "must be a datetime (ISO 8601), got another text"),
        (contract(), "2026-01-02T24:00:00", "got another text"),
        (contract(), "٢٠٢٦-01-02T03:04:05", "got another text"),
        (contract(), "2026-01-02T03:04:05\n", "got another text"),
        (contract(), 1767323045, "must be a datetime (ISO 8601), got a number"),
        (contract(), np.timedelta64(5, "ns"), "got a timedelta64"),
        (contract(), None, "got a missing value"),
        (contract(), pd.NaT, "got a missing value"),
        (contract(), np.datetime64("NaT"), "got a missing value"),
        (contract(), "2026-01-02T03:04:05Z", "without a zone, as 2026-01-02T03:04:05; it has one"),
        (contract(), dt.datetime(2026, 1, 2, tzinfo=BERLIN), "without a zone"),
        (
            contract(dtype=ZONED),
            "2026-01-02T03:04:05",
            "with a zone, as 2026-01-02T03:04:05Z or +01:00; it has none",
        ),
        (contract(dtype=ZONED), "2026-01-02", "with a zone"),
        (contract(dtype=ZONED), "9999-12-31T23:00:00-05:00", "got another text"),
        (
            contract("date"),
            "2026-01-02T03:04:05",
            "must be a date (ISO 8601, as 2026-01-02), got a time of day too",
        ),
        (contract("date"), "2026-01-02T00:00:00Z", "got a time of day too"),
        (contract("number", None), np.datetime64("2026-01-02", "ns"), "must be a number, got a datetime64"),
        (contract("integer", None), np.timedelta64(5, "ns"), "must be an integer, got a timedelta64"),
    ],
)
def test_what_is_no_such_datetime_is_refused_by_the_producer(takes: Contract, value: Any, problem: str) -> None:
    with pytest.raises(InvalidInput, match=re.escape(problem)):
        check(takes, value)


@pytest.mark.parametrize("value", [None, pd.NaT, np.datetime64("NaT"), float("nan")])
def test_a_missing_datetime_is_null(value: Any) -> None:
    assert check(contract(nullable=True), value) is None


@given(
    st.from_regex(PLAIN_DATE, fullmatch=True)
    | st.from_regex(PLAIN_DATETIME, fullmatch=True)
    | st.from_regex(PLAIN_INSTANT, fullmatch=True)
)
def test_a_text_that_is_accepted_without_parsing_can_be_parsed(text: str) -> None:
    parse_datetime(text)


def test_the_usual_forms_are_accepted_without_parsing() -> None:
    for takes, text in ((contract(), "2026-01-02T03:04:05.5"), (contract(dtype=ZONED), "2026-01-02T03:04:05Z")):
        msgspec.convert({"at_time": text}, instance_types(takes.input).instance)


def test_nanoseconds_are_read() -> None:
    assert parse_nanoseconds("2026-01-02T03:04:05.1234567+01:00") == 700
    assert parse_nanoseconds("2026-01-02T03:04:05.123456") == 0


@pytest.mark.parametrize(
    ("old", "new", "breaking", "text"),
    [
        (contract(), contract(dtype=ZONED), True, "datetime without a zone becomes datetime with a zone"),
        (contract("date"), contract(), False, "date becomes datetime without a zone"),
        (contract(), contract("date"), True, "datetime without a zone becomes date"),
        (contract(dtype=ZONED), contract("string", None), False, "datetime with a zone becomes string"),
        (contract("string", None), contract(), True, "string becomes datetime without a zone"),
    ],
)
def test_a_change_of_kind_breaks_producers_if_it_refuses_values(
    old: Contract, new: Contract, breaking: bool, text: str
) -> None:
    (change,) = compare_contracts(old, new)
    assert change.breaking is breaking
    assert text in change.text


def test_another_unit_breaks_no_producer() -> None:
    assert compare_contracts(contract(), contract(dtype="datetime64[ns]")) == ()
