"""Whatever a person gives to `package` by mistake, the answer is a sentence about it and never a traceback."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import skops.io
from sklearn.linear_model import LogisticRegression

from headrace.cli.commands import _report
from headrace.errors import InvalidInput, ModelError
from headrace_worker import package
from headrace_worker.packaging.package import package as package_file
from headrace_worker.store.store import Store

TABLE = pd.DataFrame({"a": np.arange(20.0), "b": np.arange(20.0) % 3})
TARGET = (TABLE["a"] > 9).astype(int)


class Exits:
    """A model that ends its process."""

    def predict(self, rows: Any) -> Any:
        raise SystemExit(3)


class OddAttributes:
    """A model whose attributes are not those of an estimator."""

    n_features_in_ = "two"
    feature_names_in_ = 3

    def predict(self, rows: Any) -> Any:
        return np.ones(len(rows))


class AnyMethod:
    """A model that has every attribute, as a mock has."""

    def __getattr__(self, name: str) -> Any:
        return lambda *_, **__: 1


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setenv("HEADRACE_MODELS", str(tmp_path / "store"))
    return Store(tmp_path / "store")


@pytest.fixture
def model() -> Any:
    return LogisticRegression().fit(TABLE, TARGET)


@pytest.mark.parametrize(
    "table",
    [None, 3, "abc", {"a": [1]}, {1, 2}, np.array(3), (row for row in [[1, 2]])],
    ids=lambda table: type(table).__name__,
)
def test_what_is_no_table_is_refused_by_its_type(table: Any, model: Any) -> None:
    with pytest.raises(ModelError, match=r"a table is|an array of instances has|the example"):
        package(model, table, name="m")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": 3}, "method must be a text; got a int"),
        ({"runtime": 3}, "runtime must be a text; got a int"),
        ({"name": None}, "name must be a text; got a NoneType"),
        ({"limits": 3}, "limits must be"),
        ({"code": 3}, "code must be a path or a list of paths"),
        ({"y": [1]}, "cannot be scored with this table and y"),
        ({"y": "a"}, "cannot be scored with this table and y"),
    ],
)
def test_an_argument_of_another_type_is_named(options: dict[str, Any], message: str, model: Any) -> None:
    with pytest.raises(InvalidInput, match=message):
        package(model, TABLE, **{"name": "m", "trust_pickle": True, **options})


@pytest.mark.parametrize("make", [Exits, OddAttributes, AnyMethod])
def test_an_object_that_only_resembles_a_model_is_refused(make: Callable[[], Any], store: Store) -> None:
    with pytest.raises(ModelError, match="does not behave as a model of scikit-learn does"):
        package(make(), TABLE, name="m", trust_pickle=True)
    assert store.models() == []


def test_the_command_shows_the_model_s_own_traceback_if_it_is_asked_to(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ModelError) as caught:
        package(Exits(), TABLE, name="m", trust_pickle=True)
    assert _report(caught.value) == 1
    assert "Traceback" not in capsys.readouterr().err
    monkeypatch.setenv("HEADRACE_DEBUG", "1")
    assert _report(caught.value) == 1
    assert re.search(r"in predict\n.*SystemExit: 3\nheadrace: Exits does not", capsys.readouterr().err, re.DOTALL)


def test_modules_that_do_not_exist_are_named(model: Any) -> None:
    with pytest.raises(ModelError, match=r"nowhere does not exist"):
        package(model, TABLE, name="m", code="nowhere", trust_pickle=True)


def test_a_contract_without_features_and_a_factory_that_exits_are_refused(
    model: Any, store: Store, tmp_path: Path
) -> None:
    contract, example, file = tmp_path / "contract.json", tmp_path / "rows.json", tmp_path / "m.skops"
    contract.write_text('{"input": {"type": "named", "features": []}}')
    example.write_text('[{"a": 1, "b": 2}]')
    skops.io.dump(model, file)
    with pytest.raises(ModelError, match="it names no features"):
        package_file(store, file, name="m", example=example, contract=contract)
    with pytest.raises(ModelError, match=r"builtins:exit cannot be loaded: SystemExit"):
        package_file(store, "builtins:exit", name="m", example=example)
