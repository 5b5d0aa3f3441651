"""The log of one process about a Redis that is away: a line at its start and one at its end, and few between.

Several loops of a worker try in vain once a second. What each of them reports becomes one outage.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from redis import exceptions

from headrace.connection.errors import is_transient, translate_error
from headrace.settings import Settings

#: Seconds of an outage after which it is logged again, the first time and at the longest; each time is twice the
#: last one.
_FIRST_REMINDER, _LONGEST_REMINDER = 60.0, 900.0
#: Causes of one outage that are logged when they first appear, for instance that Redis answers but still loads.
_MAX_CAUSES = 5


def is_outage(error: BaseException) -> bool:
    """Decide whether an error says that Redis is away, or refuses everything: whoever waits may succeed later."""
    # An unknown user or a wrong password is a ConnectionError of redis-py: the password may have been rotated.
    return isinstance(error, OSError | exceptions.ConnectionError) or (
        isinstance(error, exceptions.RedisError) and is_transient(error)
    )


def explainer(settings: Settings) -> Callable[[BaseException], str]:
    """Return the function that says what an error means and on which server. The text holds no secret."""

    def explain(error: BaseException) -> str:
        if not isinstance(error, exceptions.RedisError):
            error = exceptions.ConnectionError(str(error))
        return str(translate_error(error, settings))

    return explain


class OutageLog:
    """The outages of Redis as one process sees them. Thread-safe. `clock` returns monotonic seconds.

    An outage lasts while the last try of any component has failed.
    """

    def __init__(
        self,
        log: logging.Logger,
        explain: Callable[[BaseException], str] = str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._log, self._explain, self._clock = log, explain, clock
        self._lock = threading.Lock()
        #: The components whose last try failed.
        self._failing: set[str] = set()
        self._began_at = self._remind_at = 0.0
        self._reminder = _FIRST_REMINDER
        self._causes: set[str] = set()
        self._cause = ""

    @property
    def cause(self) -> str:
        """The last error of the present outage, as a sentence; "" if there is no outage."""
        return self._cause

    def is_failing(self, component: str) -> bool:
        """Return whether the last try of a component has failed."""
        return component in self._failing

    def failed(self, component: str, error: BaseException) -> None:
        """Record that a component's try has failed."""
        cause = self._explain(error)
        with self._lock:
            now, is_new = self._clock(), not self._failing
            self._failing.add(component)
            self._cause = cause
            if is_new:
                self._began_at, self._remind_at, self._reminder = now, now + _FIRST_REMINDER, _FIRST_REMINDER
                self._causes = {cause}
                self._log.warning("%s Waiting for it", _end_sentence(cause))
            elif now >= self._remind_at:
                self._reminder = min(2 * self._reminder, _LONGEST_REMINDER)
                self._remind_at = now + self._reminder
                self._log.warning("for %.0f s: %s Waiting for it", now - self._began_at, _end_sentence(cause))
            elif cause not in self._causes and len(self._causes) < _MAX_CAUSES:
                self._causes.add(cause)
                self._log.warning("%s Waiting for it", _end_sentence(cause))

    def succeeded(self, component: str) -> None:
        """Record that a component's try has succeeded. When none fails any more, the outage has ended."""
        if component not in self._failing:  # each round of a loop comes here
            return
        with self._lock:
            self._failing.discard(component)
            if not self._failing:
                self._cause = ""
                self._log.warning("Redis answers again, after %.1f s", self._clock() - self._began_at)


def _end_sentence(text: str) -> str:
    return text if text.endswith(("?", ".", "!")) else f"{text}."
