"""Names of queues, keys and channels are those of kombu and Celery."""

from __future__ import annotations

from uuid import UUID

import pytest
from kombu.transport.redis import Channel

from headrace.wire.keys import Keys
from headrace.wire.queues import model_name, priority_index, queue_name


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
