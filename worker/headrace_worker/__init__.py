"""Celery workers that claim prediction jobs and run scikit-learn models: `celery -A headrace_worker worker`."""

from __future__ import annotations

from typing import Any


def __getattr__(name: str) -> Any:
    # Where Celery's `-A headrace_worker` looks for the app. Made on demand: importing a part of the worker
    # (the model store, say) should not read settings or start Sentry.
    if name == "celery":
        from headrace.errors import SettingError

        try:
            from headrace_worker.app import app
        except SettingError as error:
            # Celery would show its usage and a traceback; SystemExit passes through it.
            raise SystemExit(f"headrace: {error}") from None
        return app
    raise AttributeError(f"module 'headrace_worker' has no attribute {name!r}")
