"""The life of a model in each runtime, under load: no job fails, or runs on another version than it names."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import numpy as np
import pytest
import skops.io
from click.testing import CliRunner, Result
from sklearn.ensemble import RandomForestRegressor
from sklearn.linear_model import LinearRegression

from headrace import Client, Settings
from headrace_worker.cli.models import models
from headrace_worker.local.embedded_redis import EmbeddedRedis
from headrace_worker.local.stack import start_worker
from headrace_worker.manifest import Limits
from headrace_worker.packaging.package import package
from headrace_worker.store.store import Store
from tests.support import ROOT
from tests.support.waiting import wait_until

RUNTIMES = ("sklearn", "treelite", "onnx", "python")
EXAMPLE = np.random.default_rng(0).random((30, 2))
#: The instance of every job; it is not in the example.
ROW = [-1.0, 0.5]
TIMEOUT = 40.0
#: A job is retried at once, and often enough to succeed on the flaky version.
RETRY_LIMITS = Limits(max_attempts=40, retry_delay=0.0)


def write_estimator(runtime: str, predictions: list[float], file: Path) -> None:
    """Write an estimator with constant predictions that the runtime supports."""
    steps = 0.1 * (EXAMPLE > 0.5)[:, : len(predictions)]
    targets = (np.tile(predictions, (len(EXAMPLE), 1)) + steps).squeeze()
    estimator = LinearRegression() if runtime == "onnx" else RandomForestRegressor(5, random_state=0)
    skops.io.dump(estimator.fit(EXAMPLE, targets), file)


_FACTORIES = {2: "Wide", 3: "Flaky"}


def add(store: Store, runtime: str, folder: Path) -> None:
    """Add five versions: 1 and 4 are good, 2 has another output shape, 3 is flaky, 5 has a wrong example."""
    example, contract, file, data = (folder / name for name in ("e.json", "c.json", "m.skops", "data"))
    example.write_text(json.dumps(EXAMPLE.tolist()))
    for number in (1, 2, 3, 4, 5):
        data.write_text(str(10.0 * number))
        if runtime == "python" or number == 3:
            manifest = package(
                store,
                f"tests.support.life_models:{_FACTORIES.get(number, 'Plain')}",
                name=runtime,
                example=example,
                data=data,
                contract=contract if number > 1 else None,
                limits=RETRY_LIMITS,
            )
        else:
            write_estimator(runtime, [10.0 * number] * (2 if number == 2 else 1), file)
            selected = "sklearn" if number == 2 else runtime
            manifest = package(store, file, name=runtime, example=example, runtime=selected, limits=RETRY_LIMITS)
        if number == 1:
            contract.write_bytes(msgspec.json.encode(manifest.contract))
            assert manifest.runtime == runtime
    path = store.path / runtime / "5" / "manifest.json"
    damaged = json.loads(path.read_text())
    damaged["example"]["expected"]["predict"][0] += 1
    path.chmod(0o600)
    path.write_text(json.dumps(damaged))


@pytest.fixture(scope="module")
def served_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Store]]:
    """Start Redis and a worker that serves version 1 of four models; yield URL and store."""
    folder = tmp_path_factory.mktemp("life")
    store = Store(folder / "models")
    with pytest.MonkeyPatch.context() as patch, EmbeddedRedis("--appendfsync", "no") as redis:
        patch.syspath_prepend(ROOT)
        for runtime in RUNTIMES:
            add(store, runtime, folder)
        for runtime in RUNTIMES:
            run_models(redis.url, store, "promote", runtime, "1", "--force")
        settings = {
            "HEADRACE_TRUST_MODULES": "tests.support.life_models",
            "HEADRACE_CANARY_JOBS": "30",
            "PYTHONPATH": str(ROOT),
        }
        worker = start_worker(redis.url, store.path, folder, concurrency=2, **settings)
        try:
            yield redis.url, store
        finally:
            worker.stop()


def run_models(url: str, store: Store, *arguments: str, code: int = 0) -> Result:
    """Run `headrace models` with these arguments, and check its exit code."""
    completed = CliRunner().invoke(models, [*arguments, "--store", str(store.path), "--url", url])
    assert completed.exit_code == code or (code and completed.exception), completed.output
    return completed


@contextlib.contextmanager
def load(url: str, model: str) -> Iterator[Sequence[str]]:
    """Run three clients: one resolves aliases itself, one leaves them to the worker, one names version 1.

    Yields the list of versions that answered the first two, in order. A failure in any client fails the test.
    """
    answered: list[str] = []
    failures: list[object] = []
    stop = threading.Event()

    def run_client(check: bool, version: str | None) -> None:
        try:
            with Client(settings=Settings(redis_url=url, contract_ttl=0.2), check=check) as client:
                while not stop.wait(0.01):
                    jobs = client.submit_many(model, [ROW] * 4, version=version)
                    for result in (job.result(timeout=TIMEOUT) for job in jobs):
                        right_version = version in {None, result.version}
                        if round(result.prediction / 10) != int(result.version) or not right_version:
                            failures.append((version, result))
                        if version is None:
                            answered.append(result.version)
        except BaseException as error:  # noqa: BLE001  # asserted in the test's own thread
            failures.append(error)

    threads = [
        threading.Thread(target=run_client, args=arguments)
        for arguments in ((True, None), (False, None), (True, "1"))
    ]
    for thread in threads:
        thread.start()
    try:
        yield answered
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert failures == []


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_versions_are_promoted_tried_and_rolled_back_without_a_failed_job(
    runtime: str, served_store: tuple[str, Store]
) -> None:
    url, store = served_store

    def run(*arguments: str, code: int = 0) -> Result:
        return run_models(url, store, *arguments, code=code)

    def serving() -> dict[str, str]:
        lines = run("aliases", runtime, "--json").stdout.splitlines()
        return {alias["alias"]: alias["version"] for alias in map(json.loads, lines)}

    with load(url, runtime) as answered:
        wait_until(lambda: len(answered) > 50)
        assert set(answered) == {"1"}

        refused = run("promote", runtime, "2", code=1)
        assert "breaks producers: predict returns a list of 2, no longer a value" in str(refused.exception)

        run("promote", runtime, "3", "--canary", "50%")
        wait_until(lambda: "3" in answered)
        wait_until(lambda: "canary" not in serving())
        newest = json.loads(run("history", runtime, "--json").stdout.splitlines()[0])
        assert (newest["alias"], newest["former"], newest["by"]) == ("canary", "3", "headrace")
        assert "jobs failed" in newest["reason"]

        run("promote", runtime, "4", "--shadow")
        wait_until(lambda: _shadowed(run("compare", runtime, "--json").stdout))
        run("rollback", runtime, "--alias", "shadow")
        run("promote", runtime, "4", "--reason", "better")
        wait_until(lambda: answered[-20:] == ["4"] * 20)
        run("rollback", runtime, "--reason", "worse")
        wait_until(lambda: answered[-20:] == ["1"] * 20)
        run("promote", runtime, "4")
        wait_until(lambda: answered[-20:] == ["4"] * 20)

        refused = run("promote", runtime, "5", code=1)
        assert "gives other predictions for its example than when it was packaged" in str(refused.exception)
        assert serving() == {"production": "4"}
    assert set(answered) == {"1", "3", "4"}


def _shadowed(output: str) -> bool:
    """Return True once the shadow has run; check that each of its predictions differs by 30."""
    (shadow,) = [stats for stats in map(json.loads, output.splitlines()) if stats["alias"] == "shadow"]
    if not shadow["compared"]:
        return False
    assert shadow["differing"] == shadow["compared"]
    assert shadow["mean_difference"] == pytest.approx(30, abs=1)
    return True
