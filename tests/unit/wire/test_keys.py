"""Names of queues, keys and channels are those of kombu and Celery; names of models are safe in them."""

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


def test_the_queue_of_a_model_names_the_model():
    assert model_name(queue_name("churn")) == "churn"
    assert model_name("celery") is None


@pytest.mark.parametrize("priority", range(10))
def test_lists_and_priority_steps_are_those_of_kombu(priority: int):
    channel = Channel.__new__(Channel)
    kombu_list = channel._q_for_pri("predict.churn", channel.priority(priority))
    assert Keys().lists("predict.churn")[priority_index(priority)] == kombu_list


@pytest.mark.parametrize("separator", ["\x06\x16", ":"])
@pytest.mark.parametrize("steps", [list(range(10)), [0, 3, 6, 9], [0, 1, 5], [2, 4]])
@pytest.mark.parametrize("priority", range(10))
def test_every_list_that_kombu_writes_with_other_steps_is_read_or_gathered(
    priority: int, steps: list[int], separator: str
):
    channel = Channel.__new__(Channel)
    channel.priority_steps, channel.sep = steps, separator
    kombu_list = channel._q_for_pri("predict.churn", channel.priority(priority))
    lists, foreign = Keys().lists("predict.churn"), dict(Keys().foreign_lists("predict.churn"))
    assert kombu_list in {*lists, *foreign}
    step = channel.priority(priority)
    assert foreign.get(kombu_list, kombu_list) == lists[priority_index(step)]


def test_keys_have_the_prefix():
    keys = Keys("shop:")
    foreign = [name for name, _ in keys.foreign_lists("q")]
    names = [*keys.lists("q"), *foreign, keys.job("a"), keys.result("a"), keys.contracts("m"), keys.models]
    assert all(name.startswith("shop:") for name in names)
    assert len(set(names)) == len(names)


def test_the_record_key_of_a_uuid_has_44_bytes_and_no_two_ids_share_a_key():
    job_id = str(UUID(int=7 << 120 | 9))
    hexadecimal = job_id.replace("-", "")
    assert Keys().job(job_id) == f"headrace:id:{hexadecimal}"
    assert len(Keys().job(job_id)) == 44
    similar_ids = [
        job_id,
        "a-1-2",
        "a-12",
        "a12",
        job_id[:-1],
        job_id + "-",
        job_id.replace("-", ":"),
        "-".join(hexadecimal[:18]),
    ]
    assert len({Keys().job(job) for job in similar_ids}) == len(similar_ids)
