"""`headrace models drift`, from a sample of the training data to its output, without a worker."""

from __future__ import annotations

import json
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
import redis
import skops.io
from sklearn.linear_model import LogisticRegression

from headrace.connection.commands import Pipeline, execute
from headrace.wire.keys import Keys
from headrace_worker.drift.psi import add_commands
from headrace_worker.profile import CellLocator
from headrace_worker.store.store import Store
from tests.support.command import headrace

Run = Callable[..., subprocess.CompletedProcess[str]]
ROWS = [[float(row % 7), float(row % 50)] for row in range(400)]


@pytest.fixture
def run(tmp_path: Path, redis_url: str, server: redis.Redis) -> Iterator[Run]:
    """Run `headrace models` in a folder with an estimator, an example of 3 instances and a sample of 400."""
    skops.io.dump(LogisticRegression().fit(ROWS, [row[1] > 25 for row in ROWS]), tmp_path / "model.skops")
    (tmp_path / "rows.json").write_text(json.dumps(ROWS[:3]))
    (tmp_path / "sample.csv").write_text("a,b\n" + "\n".join(f"{a},{b}" for a, b in ROWS))
    (tmp_path / "sample.json").write_text(json.dumps(ROWS))
    (tmp_path / "wide.json").write_text(json.dumps([[*row, 1.0] for row in ROWS]))

    def run(*arguments: object, **environ: str) -> subprocess.CompletedProcess[str]:
        completed = headrace("models", *arguments, cwd=tmp_path, **{"HEADRACE_REDIS_URL": redis_url, **environ})
        assert "Traceback" not in completed.stderr
        return completed

    yield run
    hours = range(int(time.time() // 3600) - 1, int(time.time() // 3600) + 1)
    server.delete(*(Keys().drift("churn", version, hour) for version in ("1", "2") for hour in hours))


def add(run: Run, *options: str) -> subprocess.CompletedProcess[str]:
    return run("add", "model.skops", "--name", "churn", "--example", "rows.json", "--runtime", "sklearn", *options)


def test_drifted_columns_are_printed_first(run: Run, server: redis.Redis, tmp_path: Path):
    completed = add(run, "--profile", "sample.json")
    assert completed.returncode == 0, completed.stderr
    assert "profile   400 instances, 2 features" in completed.stdout
    manifest = Store(tmp_path / "models").read_manifest("churn", "1")
    assert manifest.profile is not None
    cells, counts = CellLocator(manifest.profile, manifest.contract), Counter[int]()
    for a, _ in ROWS:
        counts.update([*cells.locate_instance([a, 49.0]), *cells.locate_prediction(a > 3)])
    commands = add_commands(Keys(), "churn", "1", datetime.fromtimestamp(int(server.time()[0]), UTC), counts)
    execute(server, Pipeline(commands))
    lines = [line.split() for line in run("drift", "churn").stdout.splitlines()]
    assert lines[0] == ["NAME", "ROWS", "PSI", "MISSING", "WHEN", "ADDED"]
    assert [(line[0], line[2], line[4]) for line in lines[1:]] == [
        ("1", "400", "drifted"),
        ("prediction", "400", "stable"),
        ("0", "400", "stable"),
    ]
    (first, *_) = map(json.loads, run("drift", "churn@1", "--hours", 2, "--json").stdout.splitlines())
    assert (first["model"], first["version"], first["name"], first["verdict"]) == ("churn", "1", "0", "stable")


def test_a_version_without_a_profile_is_an_error_that_names_the_option(run: Run):
    assert "no profile, so drift is not measured" in add(run).stderr
    completed = run("drift", "churn")
    assert completed.returncode == 1
    assert "churn@1 was added without a profile" in completed.stderr
    completed = add(run, "--profile", "rows.json")
    assert completed.returncode == 1
    assert "rows.json holds 3 instances; a profile needs 100 or more" in completed.stderr
    assert run("drift", "churn@9").returncode == 1
    assert run("drift", "churn", "--hours", "49").returncode == 2


@pytest.mark.parametrize("sample", ["wide.json", "sample.csv"])
def test_a_sample_that_does_not_fit_is_refused(run: Run, sample: str):
    completed = add(run, "--profile", sample)
    assert completed.returncode == 1
    assert f"the sample {sample} does not fit the contract" in completed.stderr
