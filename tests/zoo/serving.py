"""Package the cases, serve them by a real worker, ask through the queue, and compare with the models."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple
from unittest.mock import patch

import numpy as np

from headrace import Client
from headrace.errors import HeadraceError
from headrace_worker import package
from headrace_worker.local.embedded_redis import EmbeddedRedis
from headrace_worker.models.loader import load
from headrace_worker.notebook import PackagedVersion
from headrace_worker.packaging.package import AUTO
from headrace_worker.store.store import Store
from headrace_worker.tables.predict import predict_table
from tests.support.claim_models import running_worker
from tests.zoo.case import PACKAGED, REQUESTED, Case, Fitted
from tests.zoo.instances import find_difference, to_answers, to_arrow, to_instances

#: The largest accepted difference of a number, relative to the number or to 1: of scikit-learn itself, and of
#: treelite and ONNX Runtime, which compute with 32-bit floats.
TOLERANCE, TOLERANCE_OF_FLOAT32 = 1e-9, 1e-5
#: Seconds in which a job must be answered.
_TIMEOUT = 60
#: The rows that are asked for with no other job in the queue.
_ALONE = 8


class Outcome(NamedTuple):
    """The outcome of a case."""

    group: str
    name: str
    #: "equal", "refused" or "wrong".
    verdict: str
    runtime: str = ""
    methods: tuple[str, ...] = ()
    #: The largest difference of a number.
    difference: float = 0.0
    #: The sentence of a refusal, or what is wrong.
    text: str = ""

    @property
    def title(self) -> str:
        """The title of the case."""
        return f"{self.group}: {self.name}"


class _Packaged(NamedTuple):
    case: Case
    fitted: Fitted
    version: PackagedVersion


def run_cases(cases: Sequence[Case], folder: Path, *, runtime: str = AUTO) -> Iterator[Outcome]:
    """Yield what became of each case. One worker serves them all. `runtime` executes those that name none."""
    store, packaged = folder / "store", []
    with patch.dict(os.environ, HEADRACE_MODELS=str(store)):
        for number, case in enumerate(cases):
            result = _package(case, f"m{number}", runtime)
            if isinstance(result, Outcome):
                yield result
            else:
                packaged.append(result)
    if not packaged:
        return
    with (
        EmbeddedRedis("--appendfsync", "no") as server,
        running_worker("--pool", "prefork", url=server.url, models=store, folder=folder),
        Client(server.url) as client,
    ):
        for entry in packaged:
            yield _ask(client, entry, store)


def _package(case: Case, name: str, runtime: str) -> _Packaged | Outcome:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            fitted = case.fit()
        except Exception as error:  # noqa: BLE001  # an estimator may raise any error
            return Outcome(case.group, case.name, "wrong", text=f"it cannot be fitted: {error}")
        try:
            version = package(
                fitted.model, fitted.table[:PACKAGED], **{"name": name, "runtime": runtime, **fitted.options}
            )
        except HeadraceError as error:
            return Outcome(case.group, case.name, "refused", text=str(error).removeprefix(f"{name}@0 "))
        except Exception as error:  # noqa: BLE001  # every refusal is an error of Headrace
            return Outcome(case.group, case.name, "wrong", text=f"package raises {type(error).__name__}: {error}")
    return _Packaged(case, fitted, version)


def _ask(client: Client, entry: _Packaged, store: Path) -> Outcome:
    """Ask each method for rows that were not packaged: in one job, row by row, and as the columns of a table."""
    manifest = entry.version.manifest
    table = entry.fitted.table[-REQUESTED:]
    instances = to_instances(table)
    tolerance = TOLERANCE if manifest.runtime == "sklearn" else TOLERANCE_OF_FLOAT32
    loaded = load(Store(store), manifest.name, manifest.version, trust_pickle=True)
    outcome = Outcome(entry.case.group, entry.case.name, "equal", manifest.runtime, tuple(manifest.methods))
    largest = 0.0
    for method in manifest.methods:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            expected = to_answers(getattr(entry.fitted.model, method)(table), REQUESTED)
        try:
            job = client.submit(manifest.name, instances=instances, method=method)
            jobs = client.submit_many(manifest.name, instances[::-1], method=method)
            answers = {
                "in one job": job.result(timeout=_TIMEOUT).predictions,
                "in company": [job.result(timeout=_TIMEOUT).prediction for job in jobs][::-1],
                "row by row": [
                    client.predict(manifest.name, instance, method=method, timeout=_TIMEOUT).prediction
                    for instance in instances[:_ALONE]
                ],
                "as a table": predict_table(loaded, method, to_arrow(table)).to_json(),
            }
        except HeadraceError as error:
            return outcome._replace(verdict="wrong", text=f"{method}: {error}")
        for way, predictions in answers.items():
            if way != "row by row" and len(predictions) != REQUESTED:
                return outcome._replace(verdict="wrong", text=f"{method} {way}: {len(predictions)} answers")
            for row, pair in enumerate(zip(expected, predictions, strict=False)):
                difference = find_difference(*pair, tolerance)
                if difference is None:
                    text = f"{method} {way}, row {row}: {pair[0]!r} became {pair[1]!r}"
                    return outcome._replace(verdict="wrong", text=text)
                largest = max(largest, difference)
    return outcome._replace(difference=largest)
