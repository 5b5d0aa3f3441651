"""Faulty worker images, deployed under load.

make deploy-test-long
"""

from __future__ import annotations

import pytest

from tests.deploy.stack import PENGUIN, Stack, check_all_succeeded

pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]


@pytest.mark.parametrize(
    "dockerfile",
    [
        'FROM headrace-worker\nENTRYPOINT ["false"]\n',
        "FROM headrace-worker\nENV HEADRACE_MODELS=/broken\nCOPY --chown=10001 broken /broken\n",
    ],
    ids=["crashes at its start", "has a broken model"],
)
def test_a_faulty_image_is_removed_and_the_old_workers_continue(stack: Stack, dockerfile: str):
    folder = stack.folder / "bad"
    version = folder / "broken" / "churn" / "1"
    stack(f"mkdir -p {version} && cp models/churn/1/* {version} && printf x >>{version}/artifact.skops")
    (folder / "Dockerfile").write_text(dockerfile)
    stack("docker build -q -t headrace-worker:bad bad")
    before = stack.containers("worker")
    with stack.load("churn", PENGUIN, 25) as load:
        settings = {"HEADRACE_WORKER_IMAGE": "headrace-worker:bad", "HEADRACE_READY_SECONDS": "15"}
        rolled = stack.run("deploy/roll.sh", env=settings)
        report = load.result(timeout=180)
    assert rolled.returncode == 1
    assert "the old ones continue" in rolled.stderr
    assert stack.containers("worker") == before
    check_all_succeeded(report)


def test_a_deploy_is_rolled_back_by_one_command(stack: Stack):
    def images() -> set[str]:
        return set(stack("docker inspect -f '{{.Config.Image}}' " + " ".join(stack.containers("worker"))).split())

    stack("docker tag headrace-worker headrace-worker:later")
    with stack.load("churn", PENGUIN, 60) as load:
        stack("deploy/roll.sh", env={"HEADRACE_WORKER_IMAGE": "headrace-worker:later"})
        assert images() == {"headrace-worker:later"}
        stack("HEADRACE_WORKER_IMAGE=headrace-worker deploy/roll.sh")
        assert images() == {"headrace-worker"}
        assert stack.healthy() == 2
        report = load.result(timeout=180)
    check_all_succeeded(report)
