"""A Redis with jobs whose outcome is to be notified, for notifiers and receivers that run on their own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import redis

from headrace import Client
from headrace.outcome import Outcome
from headrace.wire.keys import Keys
from headrace_worker.local.stack import Child
from tests.support.answering_worker import publish_outcomes, success
from tests.support.webhooks import running_notifier

KEYS = Keys()


class Site(NamedTuple):
    """A Redis, a client of it that leaves the check of instances to the worker, and a folder."""

    url: str
    server: redis.Redis
    client: Client
    folder: Path

    def end_jobs(
        self, *names: str, outcome: Callable[[str], Outcome] = success, notify: str = "orders"
    ) -> set[str]:
        """Submit jobs with a notice and publish their outcomes. Return the ids of their notices."""
        for name in names:
            self.client.submit("churn", instances=[{"age": 41}], id=name, notify=notify, metadata={"order": name})
        assert publish_outcomes(self.server, *map(outcome, names)) == [1] * len(names)
        return {name.decode() for name in self.server.hkeys(KEYS.notices)}

    def notifier(self, endpoints: str, name: str = "notifier", **settings: Any) -> AbstractContextManager[Child]:
        """Run a notifier with these endpoints."""
        return running_notifier(self.url, self.folder, endpoints, name=name, **settings)

    def is_over(self) -> bool:
        """Return True if no notice waits, and no job is under way whose outcome is to be notified."""
        return not self.server.exists(KEYS.notices, KEYS.notices_due, KEYS.notices_open)

    def count_due(self, seconds: int = 0) -> int:
        """Return the number of notices that are due in `seconds`."""
        return int(self.server.zcount(KEYS.notices_due, 0, (self.server.time()[0] + seconds) * 1000))

    def expire_claims(self) -> None:
        """Let the claims of a killed notifier end now, as they would in half a minute."""
        for name in self.server.zrange(KEYS.notices_due, 0, -1):
            self.server.zadd(KEYS.notices_due, {name: 1})

    def letter_ids(self) -> set[str]:
        """Return the ids of the dead letters."""
        return {name.decode() for name in self.server.hkeys(KEYS.dead)}


@pytest.fixture
def site(redis_url: str, server: redis.Redis, tmp_path: Path) -> Iterator[Site]:
    """A site whose Redis is empty."""
    with Client(redis_url, check=False) as client:
        yield Site(redis_url, server, client, tmp_path)
