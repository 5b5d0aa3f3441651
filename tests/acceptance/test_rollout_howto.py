"""The commands of docs/how-to/roll-out-a-version.md, run in order, print what the page shows."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
import skops.io
from click.testing import CliRunner
from sklearn.linear_model import LogisticRegression

from headrace.wire.keys import Keys
from headrace_worker.cli.models import models
from headrace_worker.packaging.package import package
from headrace_worker.store.store import Store

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "roll-out-a-version.md"
#: Lines of the page that need a worker, and tables.
NOT_CHECKED = re.compile(r"waiting for |\S+  ")


def steps() -> list[tuple[list[str], list[str]]]:
    """Return each command of the page, with the lines below it."""
    commands: list[tuple[list[str], list[str]]] = []
    for block in re.findall(r"^```console\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL):
        for line in block.splitlines():
            if line.startswith("$ headrace models "):
                commands.append((shlex.split(line)[3:], []))
            elif commands:
                commands[-1][1].append(line)
    return commands


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, redis_url: str, server: redis.Redis) -> Iterator[Path]:
    """A folder with an estimator and an example as working directory, and a key prefix of its own in Redis."""
    rows = [[float(row % 5), float(row % 3)] for row in range(30)]
    skops.io.dump(LogisticRegression().fit(rows, [row % 2 for row in range(30)]), tmp_path / "model.skops")
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HEADRACE_REDIS_URL", redis_url)
    monkeypatch.setenv("HEADRACE_KEY_PREFIX", "howto:")
    yield tmp_path
    keys = Keys("howto:")
    server.delete(keys.aliases("churn"), keys.alias_history("churn"))


def test_the_commands_of_the_page_print_what_it_shows(folder: Path):
    store, ran = Store(folder / "models"), []

    def add_versions_up_to(version: int) -> None:
        while not (store.path / "churn" / str(version)).exists():
            package(store, folder / "model.skops", name="churn", example=folder / "rows.json", runtime="sklearn")

    for arguments, lines in steps():
        if arguments[0] == "promote":
            add_versions_up_to(int(arguments[2]))
        completed = CliRunner().invoke(models, arguments)
        assert completed.exit_code == 0, (arguments, completed.output, completed.exception)
        ran.append(arguments[0])
        for line in lines:
            if not NOT_CHECKED.match(line):
                assert line in completed.output.splitlines(), (arguments, completed.output)
    assert {"promote", "add", "aliases", "rollback", "history"} <= set(ran)
