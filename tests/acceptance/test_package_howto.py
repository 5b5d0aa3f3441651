"""The Python blocks and the commands of docs/how-to/package-a-model.md run as they stand."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import redis
import skops.io
from click.testing import CliRunner
from sklearn.compose import make_column_transformer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from headrace.wire.keys import Keys
from headrace_worker.cli.models import models
from headrace_worker.rollout.promotion import Promotion
from headrace_worker.store.store import Store

PAGE = (Path(__file__).parents[2] / "docs" / "how-to" / "package-a-model.md").read_text()
RANDOM = np.random.default_rng(3)
X = pd.DataFrame({"plan": np.array(["free", "gold"])[RANDOM.integers(0, 2, 60)], "age": RANDOM.normal(40, 9, 60)})
Y = (X["age"] > 40).to_numpy()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, redis_url: str, server: redis.Redis) -> Iterator[Path]:
    """A working directory, and a key prefix of its own in Redis."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HEADRACE_MODELS", raising=False)
    monkeypatch.setenv("HEADRACE_REDIS_URL", redis_url)
    monkeypatch.setenv("HEADRACE_KEY_PREFIX", "package:")
    yield tmp_path
    keys = Keys("package:")
    server.delete(keys.aliases("churn"), keys.alias_history("churn"))


def _fit() -> Any:
    columns = make_column_transformer((OneHotEncoder(), ["plan"]), (StandardScaler(), ["age"]))
    return make_pipeline(columns, LogisticRegression()).fit(X, Y)


def test_the_calls_of_the_notebook_add_promote_and_roll_back_a_version(folder: Path) -> None:
    add, life = re.findall(r"^```python\n(from headrace_worker.*?|version\.promote.*?)^```", PAGE, re.M | re.S)
    names: dict[str, Any] = {"model": _fit(), "X": X, "y": Y}
    exec(add, names)  # the page's own lines
    names["version"].promote()
    exec(add, names)  # as above
    assert names["version"].version == "2"
    calls = life.splitlines()
    assert len(calls) == 3
    promoted: Promotion = eval(calls[0], names)  # as above
    rolled_back: Promotion = eval(calls[1], names)  # as above
    assert (promoted.former, promoted.version, rolled_back.version) == ("1", "2", "1")
    assert list(eval(calls[2], names)) == ["production 1"]  # as above


def test_the_commands_add_versions(folder: Path) -> None:
    skops.io.dump(_fit(), folder / "model.skops")
    skops.io.dump(_fit(), folder / "model.joblib")
    X.to_csv(folder / "rows.csv", index=False)
    pd.DataFrame({"prediction": Y}).to_csv(folder / "expected.csv", index=False)
    X.assign(prediction=Y).to_csv(folder / "scored.csv", index=False)
    added = [
        line for line in PAGE.splitlines() if line.startswith("headrace models add ") and "contract" not in line
    ]
    assert len(added) >= 4
    for number, line in enumerate(added, start=1):
        completed = CliRunner().invoke(models, shlex.split(line)[2:])
        assert completed.exit_code == 0, (line, completed.output, completed.exception)
        compared = "60 rows, largest difference 0" in completed.output
        assert compared == ("--expected" in line), completed.output
        assert compared != ("nothing was compared" in completed.output)
        assert Store(folder / "models").latest("penguins") == str(number)


def test_a_model_of_jobs_alone_is_added_with_the_option(folder: Path) -> None:
    skops.io.dump(_fit(), folder / "model.skops")
    X.to_parquet(folder / "rows.parquet")
    arguments = ["add", "model.skops", "--name", "penguins", "--example", "rows.parquet", "--alone"]
    completed = CliRunner().invoke(models, arguments)
    assert completed.exit_code == 0, completed.output
    assert "each job is predicted in a call of its own (--alone)" in completed.output
    assert Store(folder / "models").read_manifest("penguins", "1").limits.alone
