"""Each process loads a version once, and its threads use it one at a time with one thread of linear algebra."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import shutil
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import threadpoolctl

from headrace_worker.udf import Predictor
from headrace_worker.udf.process import load_once
from tests.support.customers import customers, predict_rows

TABLE = customers(200, seed=3)


@pytest.fixture
def loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file into which the model writes the number of each process that loads it."""
    file = tmp_path / "loads"
    file.touch()
    monkeypatch.setenv("FINGERPRINT_LOADS", str(file))
    return file


def _score(score: Predictor, _number: int) -> tuple[int, list[Any]]:
    return os.getpid(), score(TABLE)["prediction"].tolist()


def test_many_predictors_of_a_version_load_it_once(store: Path, tmp_path: Path, loads: Path) -> None:
    copied = shutil.copytree(store, tmp_path / "copied")
    predictors = (Predictor("churn@1", key="customer", store=copied), Predictor("churn", keep=[], store=copied))
    copies = [pickle.loads(pickle.dumps(score)) for score in predictors for _ in range(4)]
    with ThreadPoolExecutor(8) as threads:
        results = list(threads.map(lambda score: score(TABLE)["prediction"].tolist(), copies))
    assert loads.read_text() == f"{os.getpid()}\n"
    assert results == [predict_rows(store, "churn", TABLE)] * 8


def test_a_frame_without_rows_loads_nothing(store: Path, tmp_path: Path, loads: Path) -> None:
    score = Predictor("churn@1", key="customer", store=shutil.copytree(store, tmp_path / "copied"))
    assert score(TABLE.iloc[:0]).shape == (0, len(TABLE.columns) + 2)
    assert score(pa.Table.from_pandas(TABLE).slice(0, 0)).num_rows == 0
    assert loads.read_text() == ""


@pytest.mark.parametrize("method", ["fork", "forkserver"])
def test_processes_started_by_any_method_load_it_themselves_and_predict_the_same(
    method: str, store: Path, loads: Path
) -> None:
    score = Predictor("churn@1", keep=[])
    expected = score(TABLE)["prediction"].tolist()  # this process has it in memory before it forks
    loads.write_text("")
    context = multiprocessing.get_context(method)
    with ProcessPoolExecutor(2, mp_context=context) as processes:
        results = list(processes.map(_score, [score] * 6, range(6)))
    assert [predictions for _, predictions in results] == [expected] * 6
    loaded_in = [int(line) for line in loads.read_text().splitlines()]
    assert sorted(loaded_in) == sorted({process for process, _ in results})


def test_linear_algebra_has_the_threads_of_the_setting_and_the_engine_has_its_own_back(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def count_threads() -> set[int]:
        return {pool["num_threads"] for pool in threadpoolctl.threadpool_info()}

    score = Predictor("churn@1")
    with threadpoolctl.threadpool_limits(2):
        with load_once(score._pinned).use():
            assert count_threads() == {1}
        assert count_threads() == {2}
