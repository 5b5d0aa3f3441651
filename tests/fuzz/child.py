"""Run a target in a child, as a worker does with what native code reads: a crash there is an error of the file."""

from __future__ import annotations

import faulthandler
from collections.abc import Callable

from headrace.errors import HeadraceError, ModelError
from headrace_worker.models.child_process import run_in_child
from tests.fuzz import confinement

#: Seconds after which the child is ended, which is no finding.
_SECONDS = 2
#: Stands in front of an error that breaks the promise, on its way out of the child.
_BROKEN = "BROKEN PROMISE: "


def in_child(read: Callable[[bytes], None]) -> Callable[[bytes], None]:
    """Return a function that runs `read` in a child. Only an error of Headrace may come out of it."""

    def run(data: bytes) -> None:
        def step() -> None:
            faulthandler.disable()  # a crash is expected, and pytest would print it
            confinement.refused.clear()
            try:
                read(data)
            except HeadraceError as error:
                str(error).encode()
            except BaseException as error:  # noqa: BLE001  # a finding, whatever it is
                raise ModelError(f"{_BROKEN}{type(error).__name__}: {error}") from None
            if confinement.refused:
                raise ModelError(f"{_BROKEN}the file made the process do {confinement.refused}")

        try:
            run_in_child(step, seconds=_SECONDS, doing="the file was read")
        except ModelError as error:
            if str(error).startswith(_BROKEN):
                raise AssertionError(str(error)) from None

    return run
