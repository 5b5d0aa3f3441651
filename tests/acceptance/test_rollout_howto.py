"""The commands of docs/how-to/roll-out-a-version.md, one after the other, say what the page shows."""

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
#: What only a worker says, and numbers.
NOT_HERE = re.compile(r"waiting for |\S+  ")


def steps() -> list[tuple[list[str], list[str]]]:
    """Each command of the page, with the lines shown below it."""
    found: list[tuple[list[str], list[str]]] = []
    for block in re.findall(r"^```console\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL):
        for line in block.splitlines():
            if line.startswith("$ headrace models "):
                found.append((shlex.split(line)[3:], []))
            elif found:
                found[-1][1].append(line)
    return found


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, redis_url: str, server: redis.Redis) -> Iterator[Path]:
    """A folder with an estimator and an example, and a Redis that nobody else uses under this prefix."""
    rows = [[float(row % 5), float(row % 3)] for row in range(30)]
    skops.io.dump(LogisticRegression().fit(rows, [row % 2 for row in range(30)]), tmp_path / "model.skops")
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HEADRACE_REDIS_URL", redis_url)
    monkeypatch.setenv("HEADRACE_KEY_PREFIX", "howto:")
    yield tmp_path
    keys = Keys("howto:")
    server.delete(keys.aliases("churn"), keys.alias_history("churn"))


def test_the_commands_of_the_page_do_what_it_says(folder: Path):
    store, ran = Store(folder / "models"), []

    def there(version: int) -> None:
        while not (store.path / "churn" / str(version)).exists():
            package(store, folder / "model.skops", name="churn", example=folder / "rows.json", runtime="sklearn")

    for words, shown in steps():
        if words[0] == "promote":
            there(int(words[2]))
        done = CliRunner().invoke(models, words)
        assert done.exit_code == 0, (words, done.output, done.exception)
        ran.append(words[0])
        for line in shown:
            if not NOT_HERE.match(line):
                assert line in done.output.splitlines(), (words, done.output)
    assert {"promote", "add", "aliases", "rollback", "history"} <= set(ran)
