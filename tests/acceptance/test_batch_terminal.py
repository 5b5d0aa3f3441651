"""Tests of `headrace batch` on a terminal: the progress bar, and Ctrl-C."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import pytest
import redis

from headrace.wire.keys import Keys
from tests.support.stock_worker import publish_stock_contract, start_stock_worker
from tests.support.terminal import Terminal


@pytest.fixture
def url(redis_url: str) -> Iterator[str]:
    publish_stock_contract(redis_url)
    return redis_url


def write_people(path: Path, count: int, plan: str = "gold") -> Path:
    path.write_text("age,plan\n" + f"1,{plan}\n" * count)
    return path


def test_the_bar_is_drawn_on_one_line_and_a_summary_remains(url, tmp_path):
    source, target = write_people(tmp_path / "in.csv", 4000), tmp_path / "out.csv"
    source.write_text(source.read_text() + "x,slow\n1,slow\n")
    with (
        start_stock_worker(url, tmp_path / "log"),
        Terminal("batch", "churn", str(source), "-o", str(target), "--url", url, "--in-flight", "2") as terminal,
    ):
        screen = terminal.read()
        assert terminal.process.wait(10) == 3
    assert "\r[" in screen
    assert "rows done, 0 failed" in screen
    assert "rows/s" in screen
    assert "left" in screen
    assert all(len(line) < 110 for line in screen.split("\r"))
    last = screen.split("\r")[-2].removeprefix("\x1b[K")
    assert last.startswith("4,002 rows predicted by churn@3 in ")
    assert last.endswith("1 failed")


def count_cancelled_jobs(url: str) -> int:
    """Assert that every job is cancelled, and return their number."""
    with redis.Redis.from_url(url) as server:
        ids = [str(UUID(key.decode().removeprefix(Keys().job("")))) for key in server.keys(Keys().job("*"))]
        assert all(b"REVOKED" in (server.get(Keys().result(job)) or b"") for job in ids)
        return len(ids)


def test_ctrl_c_cancels_waiting_jobs_and_leaves_no_incomplete_file(url, tmp_path):
    source, target = write_people(tmp_path / "in.csv", 500), tmp_path / "out.csv"
    with Terminal("batch", "churn", str(source), "-o", str(target), "--url", url) as terminal:
        terminal.read("0 rows done")
        terminal.type(b"\x03")
        screen = terminal.read()
        assert terminal.process.wait(10) == 130
    assert f"stopped: jobs without an outcome were cancelled, {target} was not written" in screen.replace(
        "\r\n", ""
    )
    assert "Traceback" not in screen
    assert list(tmp_path.iterdir()) == [source]
    assert count_cancelled_jobs(url) == 5


def test_sigterm_does_the_same(url, tmp_path):
    source, target = write_people(tmp_path / "in.csv", 500), tmp_path / "out.csv"
    with Terminal("batch", "churn", str(source), "-o", str(target), "--url", url) as terminal:
        terminal.read("0 rows done")
        terminal.process.send_signal(signal.SIGTERM)
        screen = terminal.read()
        assert terminal.process.wait(10) == 143
    assert "was not written" in screen
    assert list(tmp_path.iterdir()) == [source]
    assert count_cancelled_jobs(url) == 5


def test_ctrl_c_while_waiting_for_a_result_exits_130_in_one_line(url):
    with Terminal("submit", "churn", '{"age": 1, "plan": "x"}', "--id", "a", "--wait", "--url", url) as terminal:
        with redis.Redis.from_url(url) as server:
            deadline = time.monotonic() + 20
            while not server.exists(Keys().job("a")):
                assert time.monotonic() < deadline
                time.sleep(0.02)
        terminal.type(b"\x03")
        screen = terminal.read()
        assert terminal.process.wait(10) == 130, screen
    assert screen.replace("^C", "").strip() == "headrace: interrupted"


def test_rows_on_the_terminal_are_not_mixed_with_a_bar(url, tmp_path):
    source = write_people(tmp_path / "in.csv", 3)
    with (
        start_stock_worker(url, tmp_path / "log"),
        Terminal("batch", "churn", str(source), "-o", "-", "--format", "csv", "--url", url) as terminal,
    ):
        screen = terminal.read()
        assert terminal.process.wait(10) == 0
    assert "\x1b" not in screen
    assert screen.splitlines()[0] == "age,plan,prediction,error"
    assert "3 rows predicted" in screen
