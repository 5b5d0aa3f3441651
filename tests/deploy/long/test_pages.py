"""The commands of docs/production/, run unchanged on the stack.

make deploy-test-long
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.deploy.stack import PENGUIN, ROOT, Stack, blocks

pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]

PAGES = sorted((ROOT / "docs" / "production").glob("*.md"))


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page)], ids=lambda page: page.stem)
def test_the_commands_of_a_page_run(page: Path, stack: Stack) -> None:
    (stack.folder / "instance.json").write_text(json.dumps(PENGUIN))
    for block in blocks(page):
        stack("set -e\n" + block, timeout=400)
    stack("docker-compose up -d --no-deps --scale worker=2 worker")
    stack.wait_for("all services are healthy", lambda: (stack.healthy("redis"), stack.healthy()) == (1, 2))


def test_each_of_the_twelve_questions_has_its_page() -> None:
    index = (ROOT / "docs" / "production" / "README.md").read_text()
    assert re.findall(r"^(\d+)\. ", index, re.MULTILINE) == [str(number) for number in range(1, 13)]
    linked = set(re.findall(r"\]\((\w[\w-]*\.md)\)", index))
    assert linked == {page.name for page in PAGES} - {"README.md"}
