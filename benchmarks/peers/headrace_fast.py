"""Headrace with each model in the runtime that `models add --runtime auto` selects."""

from __future__ import annotations

from benchmarks.models import FAST_STORE
from benchmarks.peers import headrace
from benchmarks.peers.base import MODELS


class Client(headrace.Client):
    settings = "defaults; the models were added with `--runtime auto`"

    def environ(self) -> dict[str, str]:
        return {**super().environ(), "HEADRACE_MODELS": str(MODELS / FAST_STORE)}
