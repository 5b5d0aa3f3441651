"""Helpers that tests share: servers, workers, models to serve, builders, and the wait for a condition."""

from __future__ import annotations

from pathlib import Path

#: The root of the repository. With it in PYTHONPATH, a worker can serve models from modules of `tests.support`.
ROOT = Path(__file__).parents[2]
