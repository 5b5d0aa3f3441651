"""Moving a model's aliases as a person types it; no worker runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis
import skops.io
from sklearn.linear_model import LogisticRegression

from headrace.wire.keys import Keys
from headrace_worker.packaging.package import package
from headrace_worker.store.store import Store

Run = Callable[..., subprocess.CompletedProcess[str]]
NAMES = (Keys().aliases("churn"), Keys().alias_history("churn"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where `models` has churn: two versions of one contract, and a third with a feature more."""
    folder = tmp_path_factory.mktemp("rollout")
    for features in (2, 2, 3):
        rows = [[float(row % (place + 2)) for place in range(features)] for row in range(12)]
        skops.io.dump(LogisticRegression().fit(rows, [row % 2 for row in range(12)]), folder / "model.skops")
        (folder / "rows.json").write_text(json.dumps(rows))
        package(
            Store(folder / "models"),
            folder / "model.skops",
            name="churn",
            example=folder / "rows.json",
            runtime="sklearn",
        )
    return folder


@pytest.fixture
def run(folder: Path, redis_url: str, server: redis.Redis) -> Iterator[Run]:
    def run(*arguments: object, **environ: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-c", "from headrace.cli import main; main()", "models", *map(str, arguments)],
            cwd=folder,
            env={**os.environ, "HEADRACE_REDIS_URL": redis_url, **environ},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert "Traceback" not in done.stderr
        return done

    yield run
    server.delete(*NAMES)


@pytest.mark.parametrize("command", ["aliases", "history", "compare"])
def test_a_model_that_the_store_lacks_is_an_error_and_not_an_empty_answer(run: Run, command: str) -> None:
    done = run(command, "chrn")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "headrace: no model 'chrn' in models; did you mean 'churn'?\n"


def test_a_version_is_promoted_and_rolled_back_and_the_history_says_who_and_why(run: Run) -> None:
    assert run("aliases", "churn").stderr == "churn has no aliases: its newest version serves\n"
    assert run("history", "churn").stderr == "no alias of churn was ever moved\n"
    assert run("promote", "churn", 1, "--force").returncode == 0
    done = run("promote", "churn", 2, "--why", "fewer false alarms")
    assert done.returncode == 0
    assert done.stderr.splitlines() == [
        "production of churn is churn@2 (was churn@1)",
        "no worker serves churn now; the next to start will serve this version",
    ]
    done = run("promote", "churn", 3)
    assert done.returncode == 1
    assert "churn@3 breaks producers: " in done.stderr
    assert "--force" in done.stderr
    done = run("promote", "churn", 1, "--canary", "12.5%", "--json")
    assert json.loads(done.stdout)["share"] == 0.125
    assert [line.split() for line in run("aliases", "churn").stdout.splitlines()] == [
        ["ALIAS", "VERSION", "SHARE", "LOADED", "BY"],
        ["canary", "churn@1", "12.5%", "no", "worker"],
        ["production", "churn@2", "no", "worker"],
    ]
    assert run("rollback", "churn").stderr == "production of churn is churn@1 (was churn@2)\n"
    assert run("rollback", "churn", "--alias", "canary").returncode == 0
    moves = [json.loads(line) for line in run("history", "churn", "--json").stdout.splitlines()]
    assert [(move["alias"], move.get("former"), move.get("version")) for move in moves] == [
        ("canary", "1", None),
        ("production", "2", "1"),
        ("canary", None, "1"),
        ("production", "1", "2"),
        ("production", None, "1"),
    ]
    assert moves[3]["why"] == "fewer false alarms"
    assert all("@" in move["by"] for move in moves)
    assert "fewer false alarms" in run("history", "churn").stdout


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("promote", "churn", "9"), 1, "no version '9'"),
        (("promote", "chrn", "1"), 1, "no model 'chrn'"),
        (("promote", "churn", "latest"), 1, "a version is a number"),
        (("promote", "churn", "1", "--canary", "10"), 2, "must be a percentage"),
        (("promote", "churn", "1", "--canary", "0%"), 2, "must be a percentage"),
        (("promote", "churn", "1", "--canary", "10%", "--shadow"), 2, "exclude each other"),
        (("promote", "churn", "1", "--to", "No!"), 1, "an alias is 1 to 64 small letters"),
        (("promote", "churn", "1", "--to", "arriving"), 1, "take another"),
        (("rollback", "churn"), 1, "there is nothing to roll back"),
    ],
)
def test_what_cannot_be_is_said_in_a_sentence(run: Run, arguments: tuple[str, ...], code: int, said: str) -> None:
    done = run(*arguments)
    assert done.returncode == code, done.stderr
    assert said in done.stderr
    assert run("aliases", "churn").stdout == ""


def test_redis_away_is_said(run: Run) -> None:
    away = {"HEADRACE_REDIS_URL": "redis://127.0.0.1:1/0", "HEADRACE_COMMAND_TIMEOUT": "0.3"}
    for command in (("promote", "churn", 1), ("rollback", "churn"), ("aliases", "churn"), ("history", "churn")):
        done = run(*command, **away)
        assert done.returncode == 1
        assert "127.0.0.1:1" in done.stderr
