"""The call and the commands of docs/how-to/serve-a-booster.md run as they stand."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import catboost
import lightgbm
import pytest
import xgboost
from click.testing import CliRunner

from headrace_worker.cli.models import models
from headrace_worker.store.store import Store
from tests.support import ROOT
from tests.support.booster_models import IS_LARGE, NUMBERS

PAGE = (ROOT / "docs" / "how-to" / "serve-a-booster.md").read_text()


def test_the_call_and_the_commands_add_a_booster_of_each_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HEADRACE_MODELS", str(tmp_path / "store"))
    X, y = NUMBERS, IS_LARGE.astype(int)  # noqa: N806  # the names of the page
    X.to_parquet("rows.parquet")
    lightgbm.LGBMClassifier(n_estimators=5, verbose=-1).fit(X, y).booster_.save_model("churn.txt")
    xgboost.XGBClassifier(n_estimators=5).fit(X, y).save_model("churn.ubj")
    options: dict[str, Any] = {"iterations": 5, "verbose": 0, "allow_writing_files": False}
    catboost.CatBoostClassifier(**options).fit(X, y).save_model("churn.cbm")

    (call,) = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    names: dict[str, Any] = {"lightgbm": lightgbm, "X": X, "y": y}
    exec(call, names)  # the page's own lines
    commands = [
        line
        for block in re.findall(r"^```sh\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
        for line in block.splitlines()
    ]
    for command in commands:
        words = shlex.split(command)
        assert words[:2] == ["headrace", "models"]
        result = CliRunner().invoke(models, words[2:])
        assert result.exit_code == 0, result.output
    store = Store(tmp_path / "store")
    versions = [store.read_manifest("churn", str(number)) for number in (1, 2, 3, 4)]
    assert [version.format for version in versions] == ["lightgbm", "lightgbm", "xgboost", "catboost"]
