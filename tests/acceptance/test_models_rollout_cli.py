"""The commands `headrace models` promote, rollback, aliases and history, run as processes without a worker."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis
import skops.io
from sklearn.linear_model import LogisticRegression

from headrace.wire.keys import Keys
from headrace_worker.packaging.package import package
from headrace_worker.store.store import Store
from tests.support.command import headrace

Run = Callable[..., subprocess.CompletedProcess[str]]
NAMES = (Keys().aliases("churn"), Keys().alias_history("churn"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose store has churn: two versions with the same contract, and a third with one more feature."""
    folder = tmp_path_factory.mktemp("rollout")
    for features in (2, 2, 3):
        rows = [[float(row % (column + 2)) for column in range(features)] for row in range(12)]
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
        completed = headrace("models", *arguments, cwd=folder, **{"HEADRACE_REDIS_URL": redis_url, **environ})
        assert "Traceback" not in completed.stderr
        return completed

    yield run
    server.delete(*NAMES)


@pytest.mark.parametrize("command", ["aliases", "history", "compare"])
def test_an_unknown_model_is_an_error(run: Run, command: str) -> None:
    completed = run(command, "chrn")
    assert (completed.returncode, completed.stdout) == (1, "")
    assert completed.stderr == "headrace: no model 'chrn' in models; did you mean 'churn'?\n"


def test_promotions_and_rollbacks_are_listed_in_the_history_with_user_and_reason(run: Run) -> None:
    assert run("aliases", "churn").stderr == "churn has no aliases: its newest version serves\n"
    assert run("history", "churn").stderr == "no alias of churn has been changed yet\n"
    assert run("promote", "churn", 1, "--force").returncode == 0
    completed = run("promote", "churn", 2, "--reason", "fewer false alarms")
    assert completed.returncode == 0
    assert completed.stderr.splitlines() == [
        "production of churn is churn@2 (was churn@1)",
        "no worker serves churn now; the next one to start will serve this version",
    ]
    completed = run("promote", "churn", 3)
    assert completed.returncode == 1
    assert "churn@3 breaks producers: " in completed.stderr
    assert "--force" in completed.stderr
    completed = run("promote", "churn", 1, "--canary", "12.5%", "--json")
    assert json.loads(completed.stdout)["share"] == 0.125
    assert [line.split() for line in run("aliases", "churn").stdout.splitlines()] == [
        ["ALIAS", "VERSION", "SHARE", "LOADED", "BY"],
        ["canary", "churn@1", "12.5%", "no", "worker"],
        ["production", "churn@2", "no", "worker"],
    ]
    assert run("rollback", "churn").stderr == "production of churn is churn@1 (was churn@2)\n"
    assert run("rollback", "churn", "--alias", "canary").returncode == 0
    changes = [json.loads(line) for line in run("history", "churn", "--json").stdout.splitlines()]
    assert [(change["alias"], change.get("former"), change.get("version")) for change in changes] == [
        ("canary", "1", None),
        ("production", "2", "1"),
        ("canary", None, "1"),
        ("production", "1", "2"),
        ("production", None, "1"),
    ]
    assert changes[3]["reason"] == "fewer false alarms"
    assert all("@" in change["by"] for change in changes)
    assert "fewer false alarms" in run("history", "churn").stdout


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("promote", "churn", "9"), 1, "no version '9'"),
        (("promote", "chrn", "1"), 1, "no model 'chrn'"),
        (("promote", "churn", "latest"), 1, "a version is a number"),
        (("promote", "churn", "1", "--canary", "10"), 2, "must be a percentage"),
        (("promote", "churn", "1", "--canary", "0%"), 2, "must be a percentage"),
        (("promote", "churn", "1", "--canary", "10%", "--shadow"), 2, "exclude each other"),
        (("promote", "churn", "1", "--to", "No!"), 1, "an alias is 1 to 64 small letters"),
        (("promote", "churn", "1", "--to", "arriving"), 1, "use another alias"),
        (("rollback", "churn"), 1, "there is nothing to roll back"),
    ],
)
def test_an_invalid_promotion_is_refused_with_a_message(
    run: Run, arguments: tuple[str, ...], code: int, message: str
) -> None:
    completed = run(*arguments)
    assert completed.returncode == code, completed.stderr
    assert message in completed.stderr
    assert run("aliases", "churn").stdout == ""


def test_an_unreachable_redis_is_reported(run: Run) -> None:
    unreachable = {"HEADRACE_REDIS_URL": "redis://127.0.0.1:1/0", "HEADRACE_COMMAND_TIMEOUT": "0.3"}
    for command in (("promote", "churn", 1), ("rollback", "churn"), ("aliases", "churn"), ("history", "churn")):
        completed = run(*command, **unreachable)
        assert completed.returncode == 1
        assert "127.0.0.1:1" in completed.stderr
