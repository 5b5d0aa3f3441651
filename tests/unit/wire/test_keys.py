"""Names of queues, keys and channels: kombu's and Celery's own, and a model's name is safe in all of them."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest
from kombu.transport.redis import Channel

from headrace.errors import InvalidInput
from headrace.wire.keys import (
    Keys,
    check_job_id,
    check_model_name,
    model_name,
    priority_index,
    queue_name,
    split_version,
)


@pytest.mark.parametrize("name", ["churn", "a", "A-1_b", "9", "x" * 64])
def test_a_good_model_name_is_itself(name: str):
    assert check_model_name(name) == name


@pytest.mark.parametrize(
    "name", ["", "-a", "a b", "a/b", "..", "a\n", "ä", "x" * 65, None, 7, "a\x06\x163", "{a}"]
)
def test_a_bad_model_name_is_refused(name: object):
    with pytest.raises(InvalidInput, match="a model's name is"):
        check_model_name(name)


@pytest.mark.parametrize(
    ("given", "split"),
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
def test_a_version_may_stand_behind_the_name(given: tuple[Any, Any], split: tuple[Any, Any]):
    assert split_version(*given) == split


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("churn@7", "8"), "'churn@7' names a version, and so does `version`; give one of them"),
        (("churn@7", "7"), "give one of them"),
        (("churn@", None), "'churn@' has no version behind the '@'"),
    ],
)
def test_a_version_given_twice_or_left_out_is_refused(given: tuple[Any, Any], said: str):
    with pytest.raises(InvalidInput, match=said):
        split_version(*given)


@pytest.mark.parametrize("job", ["", " ", "a b", "\n", "a\n", "x" * 129, None, 7, b"a", "*"])
def test_a_bad_job_id_is_refused(job: object):
    with pytest.raises(InvalidInput, match="a job's id is"):
        check_job_id(job)


def test_an_absurdly_long_name_is_not_repeated_whole():
    with pytest.raises(InvalidInput) as caught:
        check_model_name("x" * 1_000_000)
    assert len(str(caught.value)) < 300


def test_the_model_of_its_queue_is_the_model():
    assert model_name(queue_name("churn")) == "churn"
    assert model_name("celery") is None


@pytest.mark.parametrize("priority", range(10))
def test_lists_and_steps_are_kombus(priority: int):
    channel = Channel.__new__(Channel)
    theirs = channel._q_for_pri("predict.churn", channel.priority(priority))
    assert Keys().lists("predict.churn")[priority_index(priority)] == theirs


def test_keys_stand_under_the_prefix():
    keys = Keys("shop:")
    names = [*keys.lists("q"), keys.job("a"), keys.result("a"), keys.contracts("m"), keys.models]
    assert all(name.startswith("shop:") for name in names)
    assert len(set(names)) == len(names)


def test_the_record_of_a_uuid_has_a_name_of_44_bytes_and_no_two_ids_share_one():
    made = str(UUID(int=7 << 120 | 9))
    hexadecimal = made.replace("-", "")
    assert Keys().job(made) == f"headrace:id:{hexadecimal}"
    assert len(Keys().job(made)) == 44
    likely = [
        made,
        "a-1-2",
        "a-12",
        "a12",
        made[:-1],
        made + "-",
        made.replace("-", ":"),
        "-".join(hexadecimal[:18]),
    ]
    assert len({Keys().job(job) for job in likely}) == len(likely)
