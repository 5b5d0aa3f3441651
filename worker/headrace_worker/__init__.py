"""Celery workers that claim prediction jobs and run scikit-learn models: `celery -A headrace_worker worker`.

notebook     `package`: a version of a fitted model in one call
udf          `Predictor`: a version as one callable over frames, for Ray, Dask, Spark, DuckDB and polars
app          the Celery app: settings, steps and signals of the worker
settings     the worker's settings: those of the client, and its own
manifest     a version's manifest: digest, runtime, contract, limits, example
profile      the distribution of a version's training data, to measure drift against
route        the versions that a model's jobs run on, by alias
parity       compare two predictions
own_modules  the modules that a version brings along
threads      the number of threads of linear algebra and OpenMP
doctor       the worker's part of `headrace doctor`, and its check of Redis at the start

cli, dashboard, local       the faces: commands, Flower pages, and a worker with its own Redis
process                     the worker as a Celery process
drift, rollout, telemetry   what is recorded of claims: distributions, canaries and shadows, metrics and logs
execution                   a claim in a pool process, from its messages to its outcomes
packaging, models, store    versions: make them, load them (`load_version`), keep them
runtimes                    how a version's model is loaded and called
boosters                    models of LightGBM, from and to its files
transport                   the kombu transport: claims, leases, wake-up
"""

from __future__ import annotations

from typing import Any


def __getattr__(name: str) -> Any:
    if name == "package":
        from headrace_worker.notebook import package

        return package
    if name == "load_version":
        from headrace_worker.models.version import load_version

        return load_version
    # Celery's `-A headrace_worker` looks for the app here. It is made on demand: importing another module of the
    # worker, for instance the model store, must not read settings or start Sentry.
    if name == "celery":
        from headrace.errors import SettingError

        try:
            from headrace_worker.app import app
        except SettingError as error:
            # Celery would print its usage and a traceback. SystemExit passes through it.
            raise SystemExit(f"headrace: {error}") from None
        return app
    raise AttributeError(f"module 'headrace_worker' has no attribute {name!r}")
