"""Jobs of a lost Redis are restored by the commands of docs/production/backup.md.

make deploy-test-long
"""

from __future__ import annotations

import json

import pytest

from tests.deploy.stack import PENGUIN, ROOT, Stack, blocks

pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]

CLIENT = """
import json, sys
from headrace import Client, Settings
from headrace.settings import load_settings
client = Client(settings=load_settings(Settings))
"""
SUBMIT = CLIENT + "print(*(client.submit('churn', json.loads(sys.argv[1]), delay=d).id for d in (0, 0, 1)))"
RESULTS = CLIENT + "print(*(client.job(id).result(timeout=60).prediction for id in sys.argv[1:]))"


def test_jobs_of_a_lost_redis_run_after_its_copy_is_restored(stack: Stack):
    copy, restore, _ = blocks(ROOT / "docs" / "production" / "backup.md")
    stack("docker-compose stop worker")
    jobs = stack.python(SUBMIT, json.dumps(PENGUIN)).split()
    assert len(jobs) == 3
    stack("set -e\n" + copy)
    stack.wait_for("Redis is back", lambda: stack.healthy("redis") == 1)
    stack.redis("FLUSHALL")
    assert stack.redis("LLEN predict.churn").strip() == "0"
    stack("set -e\n" + restore)
    stack.wait_for("Redis is back", lambda: stack.healthy("redis") == 1)
    assert len(stack.python(RESULTS, *jobs).split()) == 3
