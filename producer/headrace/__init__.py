"""Put prediction jobs on a queue, and get their outcomes.

A client submits a job and waits for its prediction:

    from headrace import Client
    client = Client()
    client.predict("churn", {"age": 41, "plan": "gold"}, timeout=5).prediction

The packages, each importing only from those after it:

- `cli/`: the command line.
- `batch/`: predictions for the rows of a file. `testing/`: clients for tests, without Redis. `monitor/`: an
  overview of queues and events. `doctor/`: checks of Redis and of a service.
- `client/`: the clients, job handles and dead letters.
- `dead_letters/`: listing, replay and purge of dead letters. `bulk/`: bulk runs.
- `submit/`: from arguments to an accepted job. `inspection/`: the state and history of a job, and queue depths.
- `results/`: from a published outcome to the caller.
- `catalog/`: contracts, aliases and loaded versions of models.
- `connection/`: Redis.
- `wire/`: the wire format.

And single modules: `settings.py`, `errors.py`, `clock.py`, `text.py`, `user.py`, `status_line.py`, `version.py`.
`contract.py` and `outcome.py` are public import paths of types. `pytest_plugin.py` has fixtures for the tests of
programs.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from headrace.version import __version__ as __version__  # re-exported

if TYPE_CHECKING:
    from headrace.catalog.contract import Contract
    from headrace.client import (
        AsyncClient,
        AsyncJobHandle,
        AsyncListener,
        AsyncRunHandle,
        Client,
        JobHandle,
        Listener,
        RunHandle,
    )
    from headrace.client.aio.protocols import (
        AnyAsyncClient,
        AnyAsyncJobHandle,
        AnyAsyncListener,
        AnyAsyncRunHandle,
    )
    from headrace.client.blocking.protocols import AnyClient, AnyJobHandle, AnyListener, AnyRunHandle
    from headrace.client.handlers import on_outcome
    from headrace.errors import (
        BrokerUnavailable,
        HeadraceError,
        InvalidInput,
        JobCancelled,
        JobConflict,
        JobExpired,
        JobFailed,
        ModelError,
        NotDurable,
        QueueFull,
        ResultTimeout,
        RunCancelled,
        RunConflict,
        RunFailed,
        SettingError,
        UnknownLetter,
        UnknownModel,
        UnknownRun,
    )
    from headrace.inspection.timeline import Timeline
    from headrace.results.listening import FinishedJob
    from headrace.settings import Settings
    from headrace.submit.options import JobOptions
    from headrace.wire.bulk import RunProgress
    from headrace.wire.outcome import Cancelled, Expired, Failure, Outcome, Prediction, Success
    from headrace.wire.routing import route_job


# The module of each public name. It is imported when the name is first used, so `import headrace` takes only a few
# milliseconds; importing redis-py alone takes 150.
_MODULES = {
    **dict.fromkeys(
        ["AnyAsyncClient", "AnyAsyncJobHandle", "AnyAsyncListener", "AnyAsyncRunHandle"], "client.aio.protocols"
    ),
    **dict.fromkeys(["AnyClient", "AnyJobHandle", "AnyListener", "AnyRunHandle"], "client.blocking.protocols"),
    "AsyncClient": "client",
    "AsyncJobHandle": "client",
    "AsyncListener": "client",
    "AsyncRunHandle": "client",
    "Client": "client",
    "Contract": "catalog.contract",
    "FinishedJob": "results.listening",
    "JobHandle": "client",
    "JobOptions": "submit.options",
    "Listener": "client",
    "RunHandle": "client",
    "RunProgress": "wire.bulk",
    "Settings": "settings",
    "Timeline": "inspection.timeline",
    **dict.fromkeys(["Cancelled", "Expired", "Failure", "Outcome", "Prediction", "Success"], "wire.outcome"),
    **dict.fromkeys(
        [
            "BrokerUnavailable",
            "HeadraceError",
            "InvalidInput",
            "JobCancelled",
            "JobConflict",
            "JobExpired",
            "JobFailed",
            "ModelError",
            "NotDurable",
            "QueueFull",
            "ResultTimeout",
            "RunCancelled",
            "RunConflict",
            "RunFailed",
            "SettingError",
            "UnknownLetter",
            "UnknownModel",
            "UnknownRun",
        ],
        "errors",
    ),
    "on_outcome": "client.handlers",
    "route_job": "wire.routing",
}

__all__ = [
    "AnyAsyncClient",
    "AnyAsyncJobHandle",
    "AnyAsyncListener",
    "AnyAsyncRunHandle",
    "AnyClient",
    "AnyJobHandle",
    "AnyListener",
    "AnyRunHandle",
    "AsyncClient",
    "AsyncJobHandle",
    "AsyncListener",
    "AsyncRunHandle",
    "BrokerUnavailable",
    "Cancelled",
    "Client",
    "Contract",
    "Expired",
    "Failure",
    "FinishedJob",
    "HeadraceError",
    "InvalidInput",
    "JobCancelled",
    "JobConflict",
    "JobExpired",
    "JobFailed",
    "JobHandle",
    "JobOptions",
    "Listener",
    "ModelError",
    "NotDurable",
    "Outcome",
    "Prediction",
    "QueueFull",
    "ResultTimeout",
    "RunCancelled",
    "RunConflict",
    "RunFailed",
    "RunHandle",
    "RunProgress",
    "SettingError",
    "Settings",
    "Success",
    "Timeline",
    "UnknownLetter",
    "UnknownModel",
    "UnknownRun",
    "on_outcome",
    "route_job",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'headrace' has no attribute {name!r}")
    return getattr(import_module(f"headrace.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
