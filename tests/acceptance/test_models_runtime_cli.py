"""`headrace models add` with each runtime, and the predictions of a worker that serves them."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import skops.io
from sklearn.datasets import make_classification
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression

from headrace.client import Client
from headrace_worker.local.stack import start_worker
from tests.support.command import headrace

X, Y = make_classification(200, 6, n_informative=4, random_state=0)
MODULE = """
class Doubled:
    def load(self, data):
        self.factor = float(data)
    def predict(self, method, instances):
        return [self.factor * sum(instance) for instance in instances]
"""
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Run `headrace models add MODEL ...` in a folder with estimators and a module."""
    (tmp_path / "example.json").write_text(json.dumps(X[:20].tolist()))
    (tmp_path / "doubled.py").write_text(MODULE)
    (tmp_path / "factor.txt").write_text("2.0")
    skops.io.dump(RandomForestClassifier(20, random_state=0).fit(X, Y), tmp_path / "forest.skops")
    skops.io.dump(LogisticRegression().fit(X, Y), tmp_path / "logistic.skops")

    def run(model: str, *options: str) -> subprocess.CompletedProcess[str]:
        completed = headrace("models", "add", model, *options, cwd=tmp_path, PYTHONPATH=str(tmp_path))
        assert "Traceback" not in completed.stderr
        return completed

    return run


def _add(run: Run, model: str, name: str, *options: str) -> subprocess.CompletedProcess[str]:
    return run(model, "--name", name, "--example", "example.json", *options)


def test_add_prints_the_runtimes_it_tried_and_the_selected_one(run: Run) -> None:
    completed = _add(run, "forest.skops", "forest", "--json")
    assert completed.returncode == 0, completed.stderr
    table = [line.split() for line in completed.stderr.splitlines()]
    assert table[0] == ["RUNTIME", "1", "INSTANCE", "64", "INSTANCES", "1,024", "INSTANCES", "DIFFERENCE"]
    manifest = json.loads(completed.stdout)
    assert [line[-1] == "selected" for line in table if line and line[0] == manifest["runtime"]] == [True]
    assert {trial["runtime"] for trial in manifest["trials"]} == {"onnx", "sklearn", "treelite"}


def test_a_runtime_that_cannot_run_the_model_is_an_error_with_the_reason(run: Run) -> None:
    completed = _add(run, "logistic.skops", "logistic", "--runtime", "treelite")
    assert completed.returncode == 1
    assert "the runtime treelite cannot run the model" in completed.stderr
    completed = _add(run, "forest.skops", "forest", "--runtime", "nothing")
    assert (completed.returncode, "there is no runtime 'nothing' here" in completed.stderr) == (1, True)


def test_a_missing_file_is_a_usage_error(run: Run) -> None:
    assert _add(run, "nothing.skops", "model").returncode == 2


@contextmanager
def _worker(url: str, folder: Path, **settings: str) -> Iterator[Client]:
    worker = start_worker(url, folder / "models", folder, PYTHONPATH=str(folder), **settings)
    try:
        with Client(url) as client:
            yield client
    finally:
        worker.stop()


def test_a_worker_serves_every_runtime_from_processes_it_forked(run: Run, redis_url: str, tmp_path: Path) -> None:
    for model, name, *options in (
        ("forest.skops", "plain", "--runtime", "sklearn"),
        ("forest.skops", "trees", "--runtime", "treelite"),
        ("logistic.skops", "graph", "--runtime", "onnx"),
        ("doubled:Doubled", "custom", "--data", "factor.txt"),
    ):
        completed = _add(run, model, name, *options)
        assert completed.returncode == 0, completed.stderr
    assert "HEADRACE_TRUST_MODULES=doubled" in completed.stderr
    forest = RandomForestClassifier(20, random_state=0).fit(X, Y).predict(X).tolist()
    expected: dict[str, list[Any]] = {
        "plain": forest,
        "trees": forest,
        "graph": LogisticRegression().fit(X, Y).predict(X).tolist(),
        "custom": [2 * sum(row) for row in X.tolist()],
    }
    with _worker(redis_url, tmp_path, HEADRACE_TRUST_MODULES="doubled") as client:
        for name, predictions in expected.items():
            jobs = [client.submit(name, instances=X[start::10].tolist()) for start in range(10)]
            for start, job in enumerate(jobs):
                assert job.result(timeout=30).predictions == pytest.approx(predictions[start::10])


def test_a_worker_runs_no_code_of_an_untrusted_module(run: Run, redis_url: str, tmp_path: Path) -> None:
    assert _add(run, "doubled:Doubled", "custom", "--data", "factor.txt").returncode == 0
    assert _add(run, "logistic.skops", "logistic").returncode == 0
    with _worker(redis_url, tmp_path) as client:
        assert client.predict("logistic", X[0].tolist(), timeout=30).prediction in {0, 1}
    assert "HEADRACE_TRUST_MODULES" in (tmp_path / "worker.log").read_text()
