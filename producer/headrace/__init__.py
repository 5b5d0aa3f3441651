"""Headrace: put prediction jobs on a queue and get their outcomes.

from headrace import Client
client = Client()
client.predict("churn", {"age": 41, "plan": "gold"}, timeout=5).prediction
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from headrace.version import __version__ as __version__  # re-exported

if TYPE_CHECKING:
    from headrace.catalog.contract import Contract
    from headrace.client import AsyncClient, AsyncJobHandle, Client, JobHandle
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
        SettingError,
        UnknownLetter,
        UnknownModel,
    )
    from headrace.settings import Settings
    from headrace.wire.outcome import Prediction


# Imported when first used: `import headrace` costs milliseconds, redis-py alone 150 of them.
_HOME = {
    "AsyncClient": "client",
    "AsyncJobHandle": "client",
    "Client": "client",
    "Contract": "catalog.contract",
    "JobHandle": "client",
    "Prediction": "wire.outcome",
    "Settings": "settings",
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
            "SettingError",
            "UnknownLetter",
            "UnknownModel",
        ],
        "errors",
    ),
}

__all__ = [
    "AsyncClient",
    "AsyncJobHandle",
    "BrokerUnavailable",
    "Client",
    "Contract",
    "HeadraceError",
    "InvalidInput",
    "JobCancelled",
    "JobConflict",
    "JobExpired",
    "JobFailed",
    "JobHandle",
    "ModelError",
    "NotDurable",
    "Prediction",
    "QueueFull",
    "ResultTimeout",
    "SettingError",
    "Settings",
    "UnknownLetter",
    "UnknownModel",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'headrace' has no attribute {name!r}")
    return getattr(import_module(f"headrace.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
