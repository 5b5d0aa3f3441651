"""Try runtimes on a model, and choose the fastest of those that predict as scikit-learn does."""

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

#: The numbers of instances in the calls that are measured.
SIZES = (1, 64, 1024)
#: How many times as fast as scikit-learn another runtime must be to be worth a second file and its libraries.
MIN_SPEEDUP = 1.1
#: The largest number of generated instances, the smallest if scikit-learn is slow, and the seconds it may take.
_MAX_GENERATED, _MIN_GENERATED, _MAX_SECONDS = 1_000, 32, 5.0
#: Each size is measured for this many seconds or calls. If a call takes longer than the last, no larger size is
#: measured.
_MEASURED_SECONDS, _MEASURED_CALLS, _SLOW_CALL_SECONDS = 0.15, 30, 1.0

Predict = Callable[[str, Sequence[Instance]], list[Any]]


class Reference(NamedTuple):
    """scikit-learn's predictions, by method, for instances that all its methods accept."""

    instances: list[Instance]
    expected: Mapping[str, list[Any]]
    #: The default method, which is measured.
    method: str


def build_reference(estimator: Any, contract: Contract, example: Sequence[Instance]) -> Reference:
    """Predict the example and generated instances with scikit-learn, as many as its speed allows."""
    runtime = SklearnRuntime(estimator, contract.input)

    def predict(instances: Sequence[Instance]) -> dict[str, list[Any]]:
        # With one thread, as in a pool process. On a busy machine, threads wait seconds for each other.
        with warnings.catch_warnings(), threadpool_limits(1):
            warnings.simplefilter("ignore")
            return {method: runtime.predict(method, instances) for method in contract.methods}

    predict(example)  # a first call takes longer
    started = time.perf_counter()
    predict(example)
    seconds_each = (time.perf_counter() - started) / len(example)
    count = max(_MIN_GENERATED, min(_MAX_GENERATED, int(_MAX_SECONDS / seconds_each)))
    generated = generate_instances(contract.input, example, count)
    instances = [*example, *_select_accepted(predict, generated)]
    return Reference(instances, predict(instances), contract.method)


def _select_accepted(predict: Callable[[Sequence[Instance]], Any], instances: list[Instance]) -> list[Instance]:
    """Return the instances that scikit-learn accepts. Those it refuses are found by halving."""
    try:
        predict(instances)
    except Exception:  # noqa: BLE001  # an estimator may refuse a value with any error
        middle = len(instances) // 2
        if not middle:
            return []
        return _select_accepted(predict, instances[:middle]) + _select_accepted(predict, instances[middle:])
    return instances


def run_trial(runtime: str, predict: Predict, reference: Reference) -> Trial:
    """Compare a runtime's predictions with the reference, and measure its calls."""
    difference = 0.0
    for method, expected in reference.expected.items():
        try:
            predictions = predict(method, reference.instances)
        except Exception as error:  # noqa: BLE001  # a runtime may raise any error
            message = str(error) if isinstance(error, HeadraceError) else type(error).__name__
            return Trial(runtime=runtime, refused=f"{method} fails: {message}")
        parity = compare_predictions(expected, predictions)
        difference = max(difference, parity.difference)
        if parity.mismatches:
            reason = (
                f"{method} differs from scikit-learn's for {len(parity.mismatches):,} of {len(expected):,} rows"
            )
            if all(_has_missing(reference.instances[index]) for index in parity.mismatches):
                reason += ", all with missing values, which the contract allows"
            return Trial(runtime=runtime, difference=difference, compared=len(expected), refused=reason)
    return Trial(
        runtime=runtime,
        difference=difference,
        compared=len(reference.instances),
        milliseconds=measure(predict, reference),
    )


def _has_missing(value: Any) -> bool:
    if isinstance(value, dict):
        return any(map(_has_missing, value.values()))
    return any(map(_has_missing, value)) if isinstance(value, list) else value is None


def measure(
    predict: Predict, reference: Reference, clock: Callable[[], float] = time.perf_counter
) -> dict[int, float]:
    """Return the milliseconds of the fastest call of the default method, by its number of instances.

    `clock` returns seconds.
    """
    milliseconds: dict[int, float] = {}
    with threadpool_limits(1):  # as in a pool process
        for size in SIZES:
            instances = (reference.instances * math.ceil(size / len(reference.instances)))[:size]
            started = clock()
            durations: list[float] = []
            while len(durations) < _MEASURED_CALLS and (not durations or clock() - started < _MEASURED_SECONDS):
                call_started = clock()
                predict(reference.method, instances)
                durations.append(clock() - call_started)
            milliseconds[size] = 1_000 * min(durations)
            if min(durations) > _SLOW_CALL_SECONDS:
                break
    return milliseconds


def choose_fastest(trials: Sequence[Trial]) -> Trial | None:
    """Return the fastest trial that passed, or scikit-learn's unless another reaches MIN_SPEEDUP.

    Return None if no trial passed.
    """
    passed = [trial for trial in trials if not trial.refused]
    sklearn = next((trial for trial in passed if trial.runtime == "sklearn"), None)
    if sklearn is None or len(passed) == 1:
        return sklearn or next(iter(passed), None)
    best = max(passed, key=lambda trial: _speedup(sklearn, trial))
    return best if _speedup(sklearn, best) >= MIN_SPEEDUP else sklearn


def _speedup(sklearn: Trial, trial: Trial) -> float:
    """Return how many times as fast a runtime is: the geometric mean over the sizes measured for both."""
    sizes = sklearn.milliseconds.keys() & trial.milliseconds.keys()
    logs = [math.log(sklearn.milliseconds[size] / trial.milliseconds[size]) for size in sizes]
    return math.exp(sum(logs) / len(logs))
