"""The names of the models in a store, read from time to time beside everything else."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection

from headrace.errors import HeadraceError

log = logging.getLogger("headrace.exporter")

#: Seconds between two readings of the store.
_READ_SECONDS = 30.0
#: Seconds that the start waits for the first reading: a store at a URL may not answer.
_FIRST_READ_SECONDS = 5.0


class StoredModels:
    """The names of models that `list_models` returned last, read anew in a thread.

    A store that cannot be read keeps the names as they were.
    """

    def __init__(self, list_models: Callable[[], Collection[str]]) -> None:
        self._list_models = list_models
        self._names: frozenset[str] = frozenset()
        self._logged_error = ""
        self._has_read = threading.Event()

    def start(self) -> None:
        """Read the names from now on. Return after the first reading, or without it after 5 s."""
        threading.Thread(target=self._run, name="headrace-stored-models", daemon=True).start()
        self._has_read.wait(_FIRST_READ_SECONDS)

    def names(self) -> frozenset[str]:
        """Return the names as last read."""
        return self._names

    def read(self) -> None:
        """Read the names now. An error is logged once, until the store can be read again."""
        try:
            self._names, self._logged_error = frozenset(self._list_models()), ""
        except (HeadraceError, OSError) as error:
            if str(error) != self._logged_error:
                self._logged_error = str(error)
                log.warning("cannot list the model store; models that only it names may be missing: %s", error)

    def _run(self) -> None:
        while True:
            self.read()
            self._has_read.set()
            time.sleep(_READ_SECONDS)
