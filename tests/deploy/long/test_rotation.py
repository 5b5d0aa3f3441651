"""Certificates and passwords are replaced while jobs run.

make deploy-test-long
"""

from __future__ import annotations

import pytest

from tests.deploy.stack import PENGUIN, Stack, check_all_succeeded

pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]


def test_certificates_and_passwords_are_rotated_without_losing_a_job(stack: Stack):
    former = (stack.folder / "secrets" / "producer.url").read_text()

    def ping(url: str) -> str:
        return stack.python(
            f"import redis; r = redis.Redis.from_url({url!r}, retry=None)\n"
            "try: print(r.ping())\nexcept redis.AuthenticationError: print('refused')"
        ).strip()

    with stack.load("churn", PENGUIN, 60) as load:
        stack("deploy/rotate.sh certs")
        stack("deploy/rotate.sh passwords")
        assert ping(former) == "True"
        report = load.result(timeout=180)
    check_all_succeeded(report)
    stack("deploy/rotate.sh forget")
    assert ping(former) == "refused"
    assert ping((stack.folder / "secrets" / "producer.url").read_text()) == "True"
    stack.wait_for("Flower accepts its new login", lambda: stack.get("/workers", login=True) == 200)
