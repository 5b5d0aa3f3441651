"""The examples of docs/reference/client.md run, from top to bottom."""

from __future__ import annotations

import re

import pytest
import redis

import headrace
from headrace.catalog.published import publish_contract
from headrace.submit.options import JobOptions
from headrace.wire.keys import Keys
from tests.support import ROOT
from tests.support.answering_worker import AnsweringWorker
from tests.support.stock_worker import CONTRACT

PAGE = (ROOT / "docs" / "reference" / "client.md").read_text(encoding="utf-8")


def test_the_examples_run(
    redis_url: str, server: redis.Redis, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("HEADRACE_REDIS_URL", redis_url)
    publish_contract(server, Keys(), CONTRACT)
    names: dict[str, object] = {}
    with AnsweringWorker(redis_url):
        for example in re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL):
            exec(example, names)
    client = names["client"]
    assert isinstance(client, headrace.Client)
    client.close()
    output = capsys.readouterr().out
    assert output.startswith("82\n")
    assert output.endswith("[36, 82, 146]\n")


#: Errors that no client raises.
WORKER_ERRORS = {"ModelError", "NotTrusted", "StoreUnavailable", "TransientError"}


def test_the_page_lists_every_option_and_error():
    for name in {*JobOptions.__annotations__, *headrace.errors.__all__} - WORKER_ERRORS:
        assert f"`{name}`" in PAGE or f"headrace.{name}" in PAGE, name
