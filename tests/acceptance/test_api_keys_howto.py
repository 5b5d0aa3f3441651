"""The commands of docs/how-to/give-out-api-keys.md, run in order, print what the page shows."""

from __future__ import annotations

import re
import shlex

import redis

from headrace.wire.keys import Keys
from tests.support import ROOT
from tests.support.command import headrace

PAGE = (ROOT / "docs" / "how-to" / "give-out-api-keys.md").read_text(encoding="utf-8")
KEY = re.compile(r"hr_orders_[0-9A-Za-z]{43}")


def test_the_commands_of_the_page_print_what_it_shows(redis_url: str, server: redis.Redis) -> None:
    steps = [block.splitlines() for block in re.findall(r"```console\n(.*?)```", PAGE, re.DOTALL)]
    for command, *lines in steps:
        ran = headrace(*shlex.split(command.removeprefix("$ headrace ")), HEADRACE_REDIS_URL=redis_url)
        assert KEY.sub("KEY", ran.stdout + ran.stderr).splitlines() == [KEY.sub("KEY", line) for line in lines]
    assert [command.split()[3] for command, *_ in steps] == ["add", "rotate", "revoke", "revoke"]
    assert not server.exists(Keys().callers)
    for command in re.findall(r"`headrace (keys change [^`]*)`", PAGE):
        headrace("keys", "add", "orders", HEADRACE_REDIS_URL=redis_url)
        assert headrace(*shlex.split(command), HEADRACE_REDIS_URL=redis_url).returncode == 0
        server.delete(Keys().callers)
