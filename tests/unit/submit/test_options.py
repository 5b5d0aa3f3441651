"""The arguments of `submit`: what each may be, and a clear answer otherwise."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from typing import Any

import pandas as pd
import pytest

from headrace.errors import InvalidInput
from headrace.submit.options import instances_from, iterate_instances, parse_options

NOW = datetime(2030, 1, 1, tzinfo=UTC)


def test_without_options_a_job_has_the_defaults():
    job = parse_options("churn", {}, NOW).make_job("a", None, [1])
    assert (job.version, job.method, job.priority, job.expires, job.eta, job.metadata) == (
        None,
        None,
        0,
        None,
        None,
        None,
    )


@pytest.mark.parametrize("expires", [60, 60.0, timedelta(minutes=1), NOW + timedelta(minutes=1)])
def test_a_deadline_is_seconds_a_timedelta_or_a_moment(expires: Any):
    assert parse_options("churn", {"expires": expires}, NOW).expires == NOW + timedelta(minutes=1)


@pytest.mark.parametrize("delay", [60, timedelta(minutes=1)])
def test_a_delay_is_seconds_or_a_timedelta(delay: Any):
    assert parse_options("churn", {"delay": delay}, NOW).eta == NOW + timedelta(minutes=1)
    assert parse_options("churn", {"delay": 0}, NOW).eta is None


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("version", 3, "a number as text"),
        ("version", "", "a number as text"),
        ("method", b"predict", "`method` is a name"),
        ("priority", 10, "from 0"),
        ("priority", -1, "from 0"),
        ("priority", 1.0, "from 0"),
        ("priority", True, "from 0"),
        ("priority", None, "from 0"),
        ("owner", "", "`owner` is a name of 1 to 32"),
        ("owner", "a.b", "`owner` is a name of 1 to 32"),
        ("notify", "x" * 33, "`notify` is a name of 1 to 32"),
        ("notify", 'a"', "`notify` is a name of 1 to 32"),
        ("notify", 7, "`notify` is a name of 1 to 32"),
        ("expires", 0, "in the past"),
        ("expires", -1, "negative"),
        ("expires", NOW, "in the past"),
        ("expires", datetime(2031, 1, 1), "time zone"),  # the mistake under test
        ("expires", "60", "number of seconds"),
        ("expires", math.nan, "number of seconds"),
        ("expires", math.inf, "number of seconds"),
        ("expires", 1e300, "over a year"),
        ("delay", -0.1, "negative"),
        ("delay", True, "number of seconds"),
        ("delay", timedelta(days=4000), "over a year"),
        ("delay", NOW, "number of seconds"),
        ("metadata", {"a": 1}, "text to text"),
        ("metadata", "a", "text to text"),
        ("metadata", {"a": "x" * 5000}, "bytes as JSON"),
    ],
)
def test_an_impossible_option_is_refused(option: str, value: Any, message: str):
    with pytest.raises(InvalidInput, match=message):
        parse_options("churn", {option: value}, NOW)  # type: ignore[misc]  # the mistake under test


def test_a_value_of_the_wrong_type_is_refused_after_an_equal_one_was_accepted():
    assert parse_options("churn", {"priority": 1, "durable": False}, NOW).priority == 1
    for options in ({"priority": True, "durable": False}, {"priority": 1.0}, {"priority": 1, "durable": 0}):
        with pytest.raises(InvalidInput, match=r"`(priority|durable)`"):
            parse_options("churn", options, NOW)  # type: ignore[arg-type]  # the mistake under test
    with pytest.raises(InvalidInput, match="`version` is a number as text"):
        parse_options("churn", {"version": ["3"]}, NOW)  # type: ignore[typeddict-item]  # as above


def test_a_job_cannot_expire_before_its_delay_is_over():
    with pytest.raises(InvalidInput, match="before its delay"):
        parse_options("churn", {"delay": 60, "expires": 30}, NOW)


def test_an_unknown_option_is_a_type_error_that_lists_all_options():
    with pytest.raises(TypeError, match="no option 'verion'; it has version, method"):
        parse_options("churn", {"verion": "3"}, NOW)  # type: ignore[typeddict-unknown-key]  # the mistake under test


def test_a_job_has_one_instance_or_a_list_of_instances():
    assert instances_from({"a": 1}, None) == [{"a": 1}]
    assert instances_from(None, ({"a": number} for number in range(2))) == [{"a": 0}, {"a": 1}]
    for instance, instances in ((None, None), ({"a": 1}, [{"a": 1}])):
        with pytest.raises(InvalidInput, match="either one instance"):
            instances_from(instance, instances)


def test_the_rows_of_a_data_frame_are_instances():
    assert instances_from(None, pd.DataFrame({"a": [1, 2], "b": ["x", None]}))[0] == {"a": 1, "b": "x"}


@pytest.mark.parametrize("instances", ["text", b"bytes", {"a": 1}, 7, object()])
def test_a_value_that_is_no_series_of_instances_is_refused(instances: Any):
    with pytest.raises(InvalidInput, match="is a list of instances"):
        iterate_instances(instances)


@pytest.mark.parametrize(
    ("rows", "description"),
    [
        ([{"a": 1}, {"a": 2}], "a list of 2 objects"),
        (({"a": 1},), "a list of 1 object"),
        (pd.DataFrame({"a": [1, 2]}), "a table of 2 rows"),
    ],
)
def test_rows_in_the_place_of_an_instance_are_refused_with_the_argument_to_use(rows: Any, description: str):
    with pytest.raises(InvalidInput, match=rf"the instance is {description}; .* use `instances=\[\.\.\.\]`"):
        instances_from(rows, None)


def test_a_list_of_values_that_celery_marks_with_their_type_is_an_instance():
    values = [{"__type__": "decimal", "__value__": "1.5"}]
    assert instances_from(values, None) == [values]
