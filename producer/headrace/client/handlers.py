"""The functions that handle ended jobs: `on_outcome` registers them, `run_listeners` of a client calls them."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from inspect import iscoroutinefunction
from typing import Any, TypeVar

import msgspec

from headrace.client.listen_state import ListenState
from headrace.errors import InvalidInput
from headrace.results.listening import FinishedJob
from headrace.text import did_you_mean

F = TypeVar("F", bound=Callable[[FinishedJob], Any])


class Handler(msgspec.Struct, frozen=True, kw_only=True):
    """The function for the ended jobs of a name, and the arguments of `listen` for it."""

    name: str
    function: Callable[[FinishedJob], Any]
    lease: float
    max_deliveries: int


#: The registered handlers, by name.
handlers: dict[str, Handler] = {}


def on_outcome(name: str, *, lease: float = 60.0, max_deliveries: int = 8) -> Callable[[F], F]:
    """Return a decorator that registers a function for the ends of jobs submitted with `listen=name`.

    `run_listeners` of a client calls it with each `FinishedJob`: of an `AsyncClient` it is a coroutine function.
    `lease` and `max_deliveries` are those of `Client.listen`. Raises InvalidInput for a bad argument, and for a
    name that has another function already.
    """
    ListenState(name, lease=lease, max_deliveries=max_deliveries, idle=None)

    def register(function: F) -> F:
        registered = handlers.get(name)
        if registered is not None and registered.function is not function:
            raise InvalidInput(f"the name {name!r} has a handler already; a name has one")
        handlers[name] = Handler(name=name, function=function, lease=lease, max_deliveries=max_deliveries)
        return function

    return register


def select_handlers(names: Sequence[str], *, is_async: bool) -> list[Handler]:
    """Return the handlers of these names, or all if there are no names.

    Raises InvalidInput for a name without a handler, for a handler of the other kind, and if there is none at all.
    """
    for name in names:
        if name not in handlers:
            raise InvalidInput(f"no handler is registered for {name!r}{did_you_mean(name, handlers)}")
    selected = [handlers[name] for name in dict.fromkeys(names)] if names else list(handlers.values())
    if not selected:
        raise InvalidInput("no handler is registered; `@headrace.on_outcome(NAME)` in front of a function does it")
    for handler in selected:
        if iscoroutinefunction(handler.function) != is_async:
            kind, client = (
                ("no coroutine function", "Client") if is_async else ("a coroutine function", "AsyncClient")
            )
            raise InvalidInput(f"the handler of {handler.name!r} is {kind}: run it with {client}")
    return selected


@contextmanager
def stop_on_signals(stop: Callable[[], None]) -> Iterator[None]:
    """Call `stop` at the first SIGTERM or SIGINT in the block; a second one does what it did before.

    In another thread than the main one, signals stay as they are.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = (signal.SIGTERM, signal.SIGINT)
    former = {number: signal.getsignal(number) for number in numbers}

    def restore() -> None:
        for number, handler in former.items():
            signal.signal(number, handler)

    def handle(*_: object) -> None:
        restore()
        stop()

    for number in numbers:
        signal.signal(number, handle)
    try:
        yield
    finally:
        restore()
