"""Try runtimes on a model: of those that predict as scikit-learn does, the quickest is kept."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from threadpoolctl import threadpool_limits

from headrace.catalog.contract import Contract
from headrace.errors import HeadraceError
from headrace.wire.message import Instance
from headrace_worker.manifest import Trial
from headrace_worker.packaging.sample_rows import generate_instances
from headrace_worker.parity import compare_predictions
from headrace_worker.runtimes.sklearn import SklearnRuntime

#: The rows of the calls that are measured.
SIZES = (1, 64, 1024)
#: Another runtime must be this much quicker than scikit-learn to be worth a second file and what it needs.
WORTH = 1.1
#: Rows generated at the most, and at the least where scikit-learn is slow, and seconds it may take over them.
_ROWS, _FEWEST_ROWS, _SECONDS = 1_000, 32, 5.0
#: A size is measured for so many seconds, or calls; one that takes longer for a call is the last.
_MEASURED_SECONDS, _MEASURED_CALLS, _SLOW_SECONDS = 0.15, 30, 1.0

Predict = Callable[[str, Sequence[Instance]], list[Any]]


class Reference(NamedTuple):
    """What scikit-learn predicts, by method, for rows that all of its methods take."""

    rows: list[Instance]
    expected: Mapping[str, list[Any]]
    method: str


def build_reference(estimator: Any, contract: Contract, instances: Sequence[Instance]) -> Reference:
    """Rows to compare runtimes on: the example's, and generated ones, as many as scikit-learn is quick for."""
    plain = SklearnRuntime(estimator, contract.input)

    def predict(rows: Sequence[Instance]) -> dict[str, list[Any]]:
        # In one thread, as in a pool process: threads that wait for each other on a busy machine take seconds.
        with warnings.catch_warnings(), threadpool_limits(1):
            warnings.simplefilter("ignore")
            return {method: plain.predict(method, rows) for method in contract.methods}

    predict(instances)  # a first call takes longer
    began = time.perf_counter()
    predict(instances)
    each = (time.perf_counter() - began) / len(instances)
    count = max(_FEWEST_ROWS, min(_ROWS, int(_SECONDS / each)))
    rows = [*instances, *_accepted_instances(predict, generate_instances(contract.input, instances, count))]
    return Reference(rows, predict(rows), contract.method)


def _accepted_instances(predict: Callable[[Sequence[Instance]], Any], rows: list[Instance]) -> list[Instance]:
    """The rows that scikit-learn takes; those it refuses are found by halving."""
    try:
        predict(rows)
    except Exception:  # noqa: BLE001  # an estimator may refuse a value with any error
        middle = len(rows) // 2
        return (
            _accepted_instances(predict, rows[:middle]) + _accepted_instances(predict, rows[middle:])
            if middle
            else []
        )
    return rows


def run_trial(runtime: str, predict: Predict, reference: Reference) -> Trial:
    """Compare what a runtime predicts, and measure it."""
    difference = 0.0
    for method, expected in reference.expected.items():
        try:
            got = predict(method, reference.rows)
        except Exception as error:  # noqa: BLE001  # a runtime may fail with any
            said = str(error) if isinstance(error, HeadraceError) else type(error).__name__
            return Trial(runtime=runtime, refused=f"{method} fails: {said}")
        found = compare_predictions(expected, got)
        difference = max(difference, found.difference)
        if found.mismatches:
            said = f"{method} differs from scikit-learn's for {len(found.mismatches):,} of {len(expected):,} rows"
            if all(_has_missing(reference.rows[place]) for place in found.mismatches):
                said += ", all with missing values, which the contract allows"
            return Trial(runtime=runtime, difference=difference, compared=len(expected), refused=said)
    return Trial(
        runtime=runtime,
        difference=difference,
        compared=len(reference.rows),
        milliseconds=measure(predict, reference),
    )


def _has_missing(value: Any) -> bool:
    if isinstance(value, dict):
        return any(map(_has_missing, value.values()))
    return any(map(_has_missing, value)) if isinstance(value, list) else value is None


def measure(
    predict: Predict, reference: Reference, clock: Callable[[], float] = time.perf_counter
) -> dict[int, float]:
    """Milliseconds of the quickest call of the default method, by its rows. `clock` gives seconds."""
    found: dict[int, float] = {}
    with threadpool_limits(1):  # as in a pool process
        for size in SIZES:
            rows = (reference.rows * math.ceil(size / len(reference.rows)))[:size]
            began = clock()
            taken: list[float] = []
            while len(taken) < _MEASURED_CALLS and (not taken or clock() - began < _MEASURED_SECONDS):
                start = clock()
                predict(reference.method, rows)
                taken.append(clock() - start)
            found[size] = 1_000 * min(taken)
            if min(taken) > _SLOW_SECONDS:
                break
    return found


def choose_fastest(trials: Sequence[Trial]) -> Trial | None:
    """The trial to keep: of those not refused the quickest, or scikit-learn's where none is worth more."""
    passed = [trial for trial in trials if not trial.refused]
    usual = next((trial for trial in passed if trial.runtime == "sklearn"), None)
    if usual is None or len(passed) == 1:
        return usual or next(iter(passed), None)
    best = max(passed, key=lambda trial: _gain(usual, trial))
    return best if _gain(usual, best) >= WORTH else usual


def _gain(usual: Trial, trial: Trial) -> float:
    """How many times quicker a runtime is: the geometric mean over the sizes measured of both."""
    sizes = usual.milliseconds.keys() & trial.milliseconds.keys()
    logs = [math.log(usual.milliseconds[size] / trial.milliseconds[size]) for size in sizes]
    return math.exp(sum(logs) / len(logs))
