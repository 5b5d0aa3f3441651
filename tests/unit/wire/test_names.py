"""Names of models, versions and jobs are safe in queues, keys and paths."""

from __future__ import annotations

from typing import Any

import pytest

from headrace.errors import InvalidInput
from headrace.wire.names import check_job_id, check_model_name, split_version


@pytest.mark.parametrize("name", ["churn", "a", "A-1_b", "9", "x" * 64])
def test_a_valid_model_name_is_returned(name: str):
    assert check_model_name(name) == name


@pytest.mark.parametrize(
    "name", ["", "-a", "a b", "a/b", "..", "a\n", "ä", "x" * 65, None, 7, "a\x06\x163", "{a}"]
)
def test_an_invalid_model_name_is_refused(name: object):
    with pytest.raises(InvalidInput, match="a model's name is"):
        check_model_name(name)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("churn", None), ("churn", None)),
        (("churn", "7"), ("churn", "7")),
        (("churn@7", None), ("churn", "7")),
        (("churn@tested", None), ("churn", "tested")),
        (("churn@a@b", None), ("churn", "a@b")),
        ((None, None), (None, None)),
        ((7, "7"), (7, "7")),
    ],
)
def test_a_version_may_follow_the_name(arguments: tuple[Any, Any], expected: tuple[Any, Any]):
    assert split_version(*arguments) == expected


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("churn@7", "8"), "'churn@7' names a version, and so does `version`; give one of them"),
        (("churn@7", "7"), "give one of them"),
        (("churn@", None), "'churn@' has no version behind the '@'"),
    ],
)
def test_a_version_that_is_given_twice_or_missing_is_refused(arguments: tuple[Any, Any], message: str):
    with pytest.raises(InvalidInput, match=message):
        split_version(*arguments)


@pytest.mark.parametrize("job", ["", " ", "a b", "\n", "a\n", "x" * 129, None, 7, b"a", "*"])
def test_an_invalid_job_id_is_refused(job: object):
    with pytest.raises(InvalidInput, match="a job's id is"):
        check_job_id(job)


def test_a_very_long_name_is_shortened_in_the_error():
    with pytest.raises(InvalidInput) as caught:
        check_model_name("x" * 1_000_000)
    assert len(str(caught.value)) < 300
