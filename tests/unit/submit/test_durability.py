"""Behind Sentinels, only a replica makes a job durable."""

from __future__ import annotations

from typing import Any

import pytest
from redis.exceptions import ResponseError

from headrace import NotDurable, Settings
from headrace.submit.durability import DurabilityGuarantee, available_guarantee
from headrace.wire.keys import Keys


def guarantee_of(replicas: int, url: str) -> Any:
    """Return the guarantee of a primary of Redis 7.0 with an append-only file and this many replicas."""
    operation = available_guarantee(Settings(redis_url=url), Keys())
    next(operation)
    info = {"redis_version": "7.0.15", "aof_enabled": 1, "connected_slaves": replicas, "role": "master"}
    if replicas:
        info["slave0"] = {"ip": "10.0.0.2", "port": 6379, "state": "online", "offset": 1, "lag": 0}
    try:
        operation.send((info, replicas, ResponseError("unknown command 'WAITAOF'")))
    except StopIteration as end:
        return end.value
    return "another command"


@pytest.mark.parametrize("url", ["redis://h/0", "sentinel://h:26379/0?master_name=jobs"])
def test_a_replica_is_enough(url: str) -> None:
    assert guarantee_of(1, url) == DurabilityGuarantee(replica=True, disk=False)


def test_a_primary_that_sentinels_chose_is_not_enough_without_a_replica() -> None:
    with pytest.raises(NotDurable, match="has no replica now"):
        guarantee_of(0, "sentinel://h:26379/0?master_name=jobs")
