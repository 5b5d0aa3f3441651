"""Headrace with each model in the runtime that `models add --runtime auto` keeps for it."""

from __future__ import annotations

from benchmarks.models import FAST_STORE
from benchmarks.peer import MODELS
from benchmarks.peers import headrace


class Client(headrace.Client):
    settings = "defaults; the models were added with `--runtime auto`"

    def environ(self) -> dict[str, str]:
        return {**super().environ(), "HEADRACE_MODELS": str(MODELS / FAST_STORE)}
