"""The numbers that the project requires of bulk runs, beside the measured ones."""

from __future__ import annotations

from functools import partial
from typing import Any

from benchmarks.bulk.comparison import BULK, LIMIT
from benchmarks.bulk.files import BATCH
from benchmarks.bulk.models import MODELS
from benchmarks.target import Target

#: The share of the limit's rows per second that a bulk run must reach.
_SHARES = {"logistic": 0.8, "mixed": 0.85, "forest": 0.95, "boosting": 0.95}


#: Ratios here are near 1.
_Ratio = partial(Target[dict[str, Any]], format="{:.2f} x")


def _of_limit(results: dict[str, Any], model: str) -> float:
    return float(_models(results, BULK)[model]["of_limit"])


def _against(results: dict[str, Any], engine: str) -> float:
    """Return the rate of a bulk run relative to an engine: the lowest of all models."""
    run, other = _models(results, BULK), _models(results, engine)
    return min(float(run[model]["rows_per_second"] / other[model]["rows_per_second"]) for model in MODELS)


def _models(results: dict[str, Any], way: str) -> dict[str, Any]:
    rows = {row["name"]: row["models"] for row in results["comparison"]["ways"]}
    models: dict[str, Any] = rows[way]
    return models


def _batch(results: dict[str, Any], way: str) -> float:
    seconds = results["files"]["cpu_seconds"]
    return float(seconds[BATCH] / seconds[way])


def _redis_seconds(results: dict[str, Any]) -> float:
    """Return Redis's processor time for a million rows of the logistic regression."""
    row = next(row for row in results["comparison"]["ways"] if row["name"] == BULK)
    turns = sorted(turn["logistic"]["redis_seconds"] for turn in row["turns"])
    return float(turns[len(turns) // 2] * 1e6 / results["comparison"]["rows"]["logistic"])


TARGETS: tuple[Target[dict[str, Any]], ...] = (
    *(
        _Ratio(
            f"rows/s, {model.title}, relative to two in-process processes with pyarrow",
            f"at least {_SHARES[name]:g} x",
            lambda results, name=name: _of_limit(results, name),  # type: ignore[misc]  # bound at once
            lambda value, share=_SHARES[name]: value >= share,  # type: ignore[misc]
        )
        for name, model in MODELS.items()
    ),
    _Ratio(
        "rows/s relative to Ray Data, the model with the lowest ratio",
        "more than 1 x",
        lambda results: _against(results, "ray"),
        lambda value: value > 1,
    ),
    _Ratio(
        "rows/s relative to Dask, the model with the lowest ratio",
        "more than 1 x",
        lambda results: _against(results, "dask"),
        lambda value: value > 1,
    ),
    _Ratio(
        "processor time of `headrace batch`, CSV to CSV, relative to in-process pyarrow",
        "at most 3 x",
        lambda results: _batch(results, LIMIT),
        lambda value: value <= 3,
    ),
    _Ratio(
        "the same, relative to a script with pandas",
        "less than 1 x",
        lambda results: _batch(results, "pandas"),
        lambda value: value < 1,
    ),
    Target(
        "processor time of Redis for 1,000,000 rows",
        "at most 0.2 s",
        _redis_seconds,
        lambda value: value <= 0.2,
        "{:.2f} s",
    ),
    Target(
        "bytes that a run of 1,000,000 rows leaves in Redis",
        "at most 1 MB",
        lambda results: results["memory"]["small"]["redis_bytes"] / 1e6,
        lambda value: value <= 1,
        "{:.2f} MB",
    ),
    _Ratio(
        "rows/s of two pool processes relative to one, random forest",
        "at least 1.8 x",
        lambda results: results["scaling"]["ratio"],
        lambda value: value >= 1.8,
    ),
    _Ratio(
        "p50 of single rows during a run, relative to an idle worker",
        "at most 1.2 x",
        lambda results: results["online"]["p50_ratio"],
        lambda value: value <= 1.2,
    ),
    _Ratio(
        "p99 of single rows during a run, relative to an idle worker",
        "at most 1.5 x",
        lambda results: results["online"]["p99_ratio"],
        lambda value: value <= 1.5,
    ),
    _Ratio(
        "memory of a worker, ten times as many rows relative to 1,000,000",
        "at most 1.1 x",
        lambda results: results["memory"]["large"]["worker_mb"] / results["memory"]["small"]["worker_mb"],
        lambda value: value <= 1.1,
    ),
    Target(
        "memory of the command that submits and waits",
        "less than 60 MB",
        lambda results: max(results["memory"][size]["client_mb"] for size in ("small", "large")),
        lambda value: value < 60,
        "{:.0f} MB",
    ),
    Target(
        "`headrace bulk submit` of a run of 1,000,000,000 rows",
        "less than 2 s",
        lambda results: results["submission"]["command_seconds"],
        lambda value: value < 2,
        "{:.2f} s",
    ),
)
