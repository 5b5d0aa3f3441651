"""The tables of all commands fit a terminal of 60, 80 or 140 columns; in a pipe nothing is left out."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
import redis

from headrace_worker.local.embedded_redis import EmbeddedRedis
from headrace_worker.store.store import Store
from tests.support.command import headrace
from tests.support.constant_models import add_constant
from tests.support.stock_worker import publish_stock_contract
from tests.support.stored_dead_letters import ago_ms, make_letter, store_letter
from tests.support.terminal import Terminal

MESSAGE = "the column 'plan' of the instance has a value that is in none of the categories of the contract"
COMMANDS = [
    ("dead", "list"),
    ("queues",),
    ("plan", "--model", "churn", "--arrivals", "1000", "--rate", "3"),
    ("keys", "list"),
    ("models", "list"),
    ("models", "show", "a-model-of-some-length"),
]


@pytest.fixture(scope="module")
def environ(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Variables of a Redis and a store that have a row or more for every table."""
    folder = tmp_path_factory.mktemp("store")
    add_constant(Store(folder / "models"), folder, "a-model-of-some-length", 4.0)
    with EmbeddedRedis() as server, redis.Redis.from_url(server.url) as client:
        publish_stock_contract(server.url)
        for number in range(3):
            letter = make_letter(f"01a22d87-d047-79f7-b02d-74f894c6409{number}", message=MESSAGE)
            store_letter(client, letter, died_ms=ago_ms(5_400))
        environ = {"HEADRACE_REDIS_URL": server.url, "HEADRACE_MODELS": str(folder / "models")}
        for name in ("billing", "marketing-and-sales"):
            made = headrace("keys", "add", name, "--models", "churn,tumour,digits", "--rate", "50/s", **environ)
            assert made.returncode == 0, made.stderr
        headrace("submit", "churn", '{"age": 41, "plan": "gold"}', **environ)
        yield environ


@pytest.mark.parametrize("columns", [60, 80, 140])
@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
def test_a_table_on_a_terminal_neither_wraps_nor_cuts_a_word(
    environ: dict[str, str], monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], columns: int
):
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("COLUMNS", raising=False)
    piped = headrace(*arguments)
    assert piped.returncode == 0, piped.stderr
    with Terminal(*arguments, columns=columns) as terminal:
        shown = terminal.read().splitlines()
        assert terminal.process.wait(20) == 0
    notes = piped.stderr.splitlines()
    table = [line for line in shown if line not in notes]
    assert len(table) == len(piped.stdout.splitlines())
    whole = {*_without_short_ages(piped.stdout).split(), "..."}
    for line in table:
        if not line.startswith(("  artifact", "  added", "input:")):  # lines of text, not of a table
            assert len(line) <= columns
        assert {*_without_short_ages(line).split()} <= whole


def _without_short_ages(text: str) -> str:
    """Return the text without ages in seconds and minutes, which differ from command to command."""
    return re.sub(r"\b\d+ [sm]\b", "", text)


def test_nothing_is_left_out_in_a_pipe(environ: dict[str, str]):
    header, row = headrace("dead", "list", COLUMNS="40", **environ).stdout.splitlines()
    assert header.split() == ["COUNT", "MODEL", "REASON", "ERROR", "OLDEST", "NEWEST", "EXAMPLE", "MESSAGE"]
    assert row.endswith(MESSAGE)
    assert "  1 h  " in row
