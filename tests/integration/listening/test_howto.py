"""The programs and commands of docs/how-to/listen.md do what the page says."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import redis

from headrace import Client, Settings
from headrace.catalog.published import publish_contract
from headrace.client import handlers, listen_state
from headrace.results import listening
from headrace.wire.keys import Keys
from tests.support import ROOT
from tests.support.answering_worker import CHURN, AnsweringWorker
from tests.support.command import headrace
from tests.support.stored_entries import replay
from tests.support.waiting import wait_until

PAGE = (ROOT / "docs" / "how-to" / "listen.md").read_text(encoding="utf-8")
SUBMIT, HANDLE, LOOP, TEST = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


def test_the_service_of_the_page_prints_what_its_jobs_ended_in(
    server: redis.Redis, redis_url: str, tmp_path: Path
):
    program = tmp_path / "service.py"
    program.write_text(SUBMIT + HANDLE)
    publish_contract(server, Keys(), CHURN)
    with AnsweringWorker(redis_url):
        process = subprocess.Popen(
            [sys.executable, "-u", program], env={"REDIS_URL": redis_url}, stdout=subprocess.PIPE, text=True
        )
        with process:
            try:
                assert process.stdout is not None
                lines = [process.stdout.readline() for _ in range(3)]
            finally:
                process.terminate()
        assert process.returncode == 0
    assert sorted(line.split(maxsplit=1)[1] for line in lines) == ["146 None\n", "36 None\n", "82 4711\n"]


def test_the_loop_of_the_page_ends_by_itself(
    server: redis.Redis,
    redis_url: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    publish_contract(server, Keys(), CHURN)
    monkeypatch.setenv("HEADRACE_REDIS_URL", redis_url)
    with AnsweringWorker(redis_url):
        scope: dict[str, Client] = {}
        exec(SUBMIT, scope)
        exec(LOOP, scope)
        scope["client"].close()
    assert capsys.readouterr().out.count("Success(") == 3


def test_the_test_of_the_page_calls_the_handler(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(handlers, "handlers", {})
    exec(HANDLE.replace("client.run_listeners()", "") + TEST, {})
    assert capsys.readouterr().out.endswith(" 0 None\n")


def test_the_commands_of_the_page_list_and_replay(server: redis.Redis, redis_url: str):
    replay(server, ["a", "b"])
    listing, replaying = re.findall(r"^headrace (dead .*)$", PAGE, re.MULTILINE)
    assert "b.listen" in headrace(*listing.split(), "--url", redis_url).stdout
    assert headrace(*replaying.split(), "--yes", "--url", redis_url).returncode == 0  # no terminal asks
    wait_until(lambda: server.zcard(Keys().listen_due) == 2)


def test_the_numbers_of_the_page_are_those_of_the_code():
    assert f"every {listen_state.POLL_SECONDS:.0f} seconds" in PAGE
    assert f"every {listen_state.SWEEP_SECONDS / 60:.0f} minutes" in PAGE
    assert [listening.pause_ms(deliveries) for deliveries in (1, 2, 3)] == [1000, 3000, 9000]
    assert listening.pause_ms(30) == 600_000
    assert Settings().listen_limit == 1_000_000
