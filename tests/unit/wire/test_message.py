"""A job is a Celery message, whichever client writes it."""

from __future__ import annotations

import base64
import json
import math
import uuid
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.errors import InvalidInput
from headrace.wire.message import Job, describe_job, encode_instances, encode_message, new_id, submission_time
from headrace.wire.parsing import parse
from headrace.wire.task_arguments import build_job

JOB = Job(
    id="job-1",
    model="churn",
    instances=[{"age": 41, "plan": "gold"}],
    version="3",
    method="predict_proba",
    priority=9,
    expires=datetime(2030, 1, 1, 12, tzinfo=timezone(timedelta(hours=2))),
    eta=datetime(2029, 1, 1, tzinfo=UTC),
    metadata={"batch": "7"},
)


def decode_parts(job: Job) -> tuple[dict[str, Any], list[Any], dict[str, Any]]:
    message = json.loads(encode_message(job))
    args, kwargs, _ = json.loads(base64.b64decode(message["body"]))
    return message, args, kwargs


def test_a_version_may_follow_the_model_of_a_plain_task():
    job = build_job("a", ["churn@7", [1]], {})
    assert (job.model, job.version) == ("churn", "7")
    with pytest.raises(InvalidInput, match="give one of them"):
        build_job("a", ["churn@7", [1]], {"version": "7"})


def test_an_encoded_job_is_decoded_unchanged():
    message, args, kwargs = decode_parts(JOB)
    decoded = build_job(
        "job-1",
        args,
        kwargs,
        eta=message["headers"]["eta"],
        expires=message["headers"]["expires"],
        priority=message["properties"]["priority"],
    )
    assert decoded == msgspec.structs.replace(JOB, expires=datetime(2030, 1, 1, 10, tzinfo=UTC))


def test_options_that_are_not_set_are_not_sent():
    _, args, kwargs = decode_parts(Job(id="a", model="churn", instances=[[1, 2]]))
    assert args == ["churn", [[1, 2]]]
    assert kwargs == {}


def test_the_message_goes_to_the_queue_of_its_model():
    message, _, _ = decode_parts(JOB)
    assert message["properties"]["delivery_info"] == {"exchange": "", "routing_key": "predict.churn"}
    assert message["headers"]["task"] == "headrace.predict"


def test_the_headers_contain_no_value_of_an_instance():
    message, _, _ = decode_parts(JOB)
    assert message["headers"]["argsrepr"] == "churn@3, 1 instance"
    assert "gold" not in json.dumps(message["headers"])


def test_every_job_has_a_delivery_tag_of_its_own():
    jobs = [msgspec.structs.replace(JOB, id=new_id()) for _ in range(100)]
    tags = {json.loads(encode_message(job))["properties"]["delivery_tag"] for job in jobs}
    assert len(tags) == 100


def test_a_job_id_holds_the_time_of_submission():
    before = datetime.now(UTC)
    names = [new_id() for _ in range(1_000)]
    moments = [submission_time(name) for name in names]
    assert len(set(names)) == 1_000
    assert {(uuid.UUID(name).version, uuid.UUID(name).variant) for name in names} == {(7, uuid.RFC_4122)}
    for moment in moments:
        assert moment is not None
        assert before - timedelta(milliseconds=1) <= moment <= datetime.now(UTC)


@pytest.mark.parametrize(
    "name",
    [
        "0c6a3c9e-eac0-4a54-a6db-9108d4390ab8",
        "ffffffff-ffff-7fff-8fff-ffffffffffff",
        "01A20764-AA27-7275-8E43-130482C27AB6",
        "01a20764-aa27-7275-8e43-130482c27ab6\n",
        "order-17",
        "",
    ],
)
def test_other_ids_hold_no_time(name: str):
    assert submission_time(name) is None


def test_jobs_share_a_template_but_not_ids_and_instances():
    other = msgspec.structs.replace(JOB, id="another", instances=[{"age": 1}])
    assert parse(encode_message(other)).to_job() == other
    assert parse(encode_message(JOB)).to_job() == JOB


def test_the_description_of_a_job():
    assert describe_job("churn", None, 2) == "churn, 2 instances"


def test_numpy_is_sent_as_numbers_and_lists():
    assert (
        encode_instances([{"a": np.float64(1.5), "b": np.int64(2)}, np.array([1, 2])])
        == b'[{"a":1.5,"b":2},[1,2]]'
    )


def test_a_decimal_is_sent_as_a_number():
    assert encode_instances([Decimal("1.50")]) == b"[1.50]"


def test_nan_is_sent_as_null_and_the_text_nan_as_text():
    assert encode_instances([math.nan, "NaN", "Infinity"]) == b'[null,"NaN","Infinity"]'


@pytest.mark.parametrize("value", [object(), Decimal("NaN"), Decimal("Infinity"), "\ud800", {1j: 2}, lambda: 1])
def test_values_that_json_cannot_represent_are_refused(value: Any):
    with pytest.raises(InvalidInput):
        encode_instances([value])


def test_an_instance_nested_too_deeply_is_refused():
    deep: Any = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(InvalidInput, match="nested too deeply"):
        encode_instances(deep)


@pytest.mark.parametrize(
    "args",
    [[], ["churn"], ["churn", {"age": 1}], [7, []], ["churn", [], "more"], ["churn", "text"], [["churn"], []]],
)
def test_invalid_arguments_are_refused_without_their_values(args: list[Any]):
    with pytest.raises(InvalidInput, match=r"arguments are \[model, instances\]") as caught:
        build_job("a", args, {})
    assert "churn" not in str(caught.value)


@pytest.mark.parametrize("kwargs", [{"verion": "3"}, {"version": 3}, {"metadata": {"a": 1}}, {"metadata": "x"}])
def test_invalid_options_are_refused(kwargs: dict[str, Any]):
    with pytest.raises(InvalidInput, match="options are version, method and metadata"):
        build_job("a", ["churn", [1]], kwargs)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2030-01-01T12:00:00+02:00", datetime(2030, 1, 1, 10, tzinfo=UTC)),
        ("2030-01-01T12:00:00", datetime(2030, 1, 1, 12, tzinfo=UTC)),
        ("2030-01-01T12:00:00.5Z", datetime(2030, 1, 1, 12, 0, 0, 500_000, tzinfo=UTC)),
        (None, None),
    ],
)
def test_moments_are_parsed_as_celery_writes_them(text: str | None, moment: datetime | None):
    assert build_job("a", ["m", [1]], {}, expires=text).expires == moment


def test_an_invalid_moment_is_refused():
    with pytest.raises(InvalidInput, match="ISO 8601"):
        build_job("a", ["m", [1]], {}, eta="tomorrow")


_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(instances=st.lists(_JSON, max_size=3))
def test_any_json_is_decoded_unchanged(instances: list[Any]):
    _, args, _ = decode_parts(Job(id="a", model="m", instances=instances))
    assert args == ["m", instances]
