"""The profile `monitoring` without Grafana: Prometheus scrapes all services, and publishes no port.

make deploy-test-long
"""

from __future__ import annotations

import json
import subprocess
from collections import Counter
from collections.abc import Iterator

import pytest

from tests.deploy.stack import Stack

pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]

QUERY = """
import sys, urllib.request
print(urllib.request.urlopen("http://prometheus:9090/api/v1/" + sys.argv[1], timeout=10).read().decode())
"""


@pytest.fixture
def monitored(stack: Stack) -> Iterator[Stack]:
    try:
        stack("docker-compose --profile monitoring up -d --no-deps exporter prometheus")
        yield stack
    finally:
        stack("docker-compose --profile monitoring rm --stop --force exporter prometheus")


def test_prometheus_scrapes_the_exporter_and_each_worker(monitored: Stack):
    def up() -> Counter[str]:
        reply = json.loads(monitored.python(QUERY, "targets?state=active"))
        return Counter(
            target["labels"]["job"] for target in reply["data"]["activeTargets"] if target["health"] == "up"
        )

    expected = {"headrace-exporter": 1, "headrace-worker": len(monitored.containers("worker"))}
    monitored.wait_for("all are scraped", lambda: up() == expected)
    redis_up = json.loads(monitored.python(QUERY, "query?query=headrace_redis_up"))
    assert [sample["value"][1] for sample in redis_up["data"]["result"]] == ["1"]
    rules = json.loads(monitored.python(QUERY, "rules"))
    assert [rule["health"] for group in rules["data"]["groups"] for rule in group["rules"]].count("err") == 0
    for service in ("exporter", "prometheus"):
        (container,) = monitored.containers(service)
        ports = ["docker", "port", container]
        assert subprocess.run(ports, capture_output=True, text=True, check=True).stdout == "", service
