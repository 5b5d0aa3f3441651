"""A model's life, for each runtime, under load: not one job fails, or runs on a version it did not name."""

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
#: What is asked: no row of the example.
ROW = [-1.0, 0.5]
SOON = 40.0
#: A job whose run meets what will pass runs again at once, and often enough to end well.
PATIENT = Limits(max_attempts=40, retry_delay=0.0)


def trained(runtime: str, answers: list[float], file: Path) -> None:
    """An estimator that gives the answers, fit for the runtime."""
    steps = 0.1 * (EXAMPLE > 0.5)[:, : len(answers)]
    targets = (np.tile(answers, (len(EXAMPLE), 1)) + steps).squeeze()
    estimator = LinearRegression() if runtime == "onnx" else RandomForestRegressor(5, random_state=0)
    skops.io.dump(estimator.fit(EXAMPLE, targets), file)


_FACTORIES = {2: "Wide", 3: "Flaky"}


def add(store: Store, runtime: str, folder: Path) -> None:
    """Five versions: 1 is good, 2 gives another form, 3 is flaky, 4 is good, 5 is not what was packaged."""
    example, contract, file, data = (folder / name for name in ("e.json", "c.json", "m.skops", "data"))
    example.write_text(json.dumps(EXAMPLE.tolist()))
    for number in (1, 2, 3, 4, 5):
        data.write_text(str(10.0 * number))
        if runtime == "python" or number == 3:
            made = package(
                store,
                f"tests.support.life_models:{_FACTORIES.get(number, 'Plain')}",
                name=runtime,
                example=example,
                data=data,
                contract=contract if number > 1 else None,
                limits=PATIENT,
            )
        else:
            trained(runtime, [10.0 * number] * (2 if number == 2 else 1), file)
            chosen = "sklearn" if number == 2 else runtime
            made = package(store, file, name=runtime, example=example, runtime=chosen, limits=PATIENT)
        if number == 1:
            contract.write_bytes(msgspec.json.encode(made.contract))
            assert made.runtime == runtime
    path = store.path / runtime / "5" / "manifest.json"
    spoilt = json.loads(path.read_text())
    spoilt["example"]["expected"]["predict"][0] += 1
    path.chmod(0o600)
    path.write_text(json.dumps(spoilt))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Store]]:
    """A worker that serves version 1 of four models."""
    folder = tmp_path_factory.mktemp("life")
    store = Store(folder / "models")
    with pytest.MonkeyPatch.context() as patch, EmbeddedRedis("--appendfsync", "no") as redis:
        patch.syspath_prepend(ROOT)
        for runtime in RUNTIMES:
            add(store, runtime, folder)
        for runtime in RUNTIMES:
            command(redis.url, store, "promote", runtime, "1", "--force")
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


def command(url: str, store: Store, *words: str, code: int = 0) -> Result:
    """`headrace models` with these words."""
    done = CliRunner().invoke(models, [*words, "--store", str(store.path), "--url", url])
    assert done.exit_code == code or (code and done.exception), done.output
    return done


@contextlib.contextmanager
def load(url: str, model: str) -> Iterator[Sequence[str]]:
    """Clients that ask: one that knows aliases, one that leaves them to the worker, one for version 1.

    The versions that answered those who name none, in order. What fails in any client fails the test.
    """
    answered: list[str] = []
    wrong: list[object] = []
    stop = threading.Event()

    def ask(check: bool, version: str | None) -> None:
        try:
            with Client(settings=Settings(redis_url=url, contract_ttl=0.2), check=check) as client:
                while not stop.wait(0.01):
                    jobs = client.submit_many(model, [ROW] * 4, version=version)
                    for done in (job.result(timeout=SOON) for job in jobs):
                        if round(done.prediction / 10) != int(done.version) or version not in {None, done.version}:
                            wrong.append((version, done))
                        if version is None:
                            answered.append(done.version)
        except BaseException as error:  # noqa: BLE001  # told in the test's own thread
            wrong.append(error)

    threads = [threading.Thread(target=ask, args=asks) for asks in ((True, None), (False, None), (True, "1"))]
    for thread in threads:
        thread.start()
    try:
        yield answered
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert wrong == []


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_model_s_life(runtime: str, world: tuple[str, Store]) -> None:
    url, store = world

    def run(*words: str, code: int = 0) -> Result:
        return command(url, store, *words, code=code)

    def serving() -> dict[str, str]:
        lines = run("aliases", runtime, "--json").stdout.splitlines()
        return {one["alias"]: one["version"] for one in map(json.loads, lines)}

    with load(url, runtime) as answered:
        wait_until(lambda: len(answered) > 50)
        assert set(answered) == {"1"}

        refused = run("promote", runtime, "2", code=1)
        assert "breaks producers: predict gives a list of 2, no longer a value" in str(refused.exception)

        run("promote", runtime, "3", "--canary", "50%")
        wait_until(lambda: "3" in answered)
        wait_until(lambda: "canary" not in serving())
        newest = json.loads(run("history", runtime, "--json").stdout.splitlines()[0])
        assert (newest["alias"], newest["former"], newest["by"]) == ("canary", "3", "headrace")
        assert "jobs failed" in newest["why"]

        run("promote", runtime, "4", "--shadow")
        wait_until(lambda: _shadowed(run("compare", runtime, "--json").stdout))
        run("rollback", runtime, "--alias", "shadow")
        run("promote", runtime, "4", "--why", "better")
        wait_until(lambda: answered[-20:] == ["4"] * 20)
        run("rollback", runtime, "--why", "worse")
        wait_until(lambda: answered[-20:] == ["1"] * 20)
        run("promote", runtime, "4")
        wait_until(lambda: answered[-20:] == ["4"] * 20)

        refused = run("promote", runtime, "5", code=1)
        assert "gives other predictions for its example than when it was packaged" in str(refused.exception)
        assert serving() == {"production": "4"}
    assert set(answered) == {"1", "3", "4"}


def _shadowed(output: str) -> bool:
    """Whether the shadow ran, and each of its predictions was another, by 30."""
    (shadow,) = [one for one in map(json.loads, output.splitlines()) if one["alias"] == "shadow"]
    if not shadow["compared"]:
        return False
    assert shadow["differing"] == shadow["compared"]
    assert shadow["mean_difference"] == pytest.approx(30, abs=1)
    return True
