"""Errors of models reach Sentry when SENTRY_DSN is set, without payloads.

`start` must run before anything imports `celery.worker.consumer.consumer`: Sentry's Celery integration
patches that module, and afterwards it is too late.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import sentry_sdk
from sentry_sdk.integrations.celery import CeleryIntegration

from headrace_worker.redaction import strike_out

if TYPE_CHECKING:
    from sentry_sdk.types import Event, Hint

    from headrace_worker.batching import Admitted


def start(release: str) -> bool:
    """Start Sentry if SENTRY_DSN is set; says whether it is."""
    if not os.environ.get("SENTRY_DSN"):
        return False
    sentry_sdk.init(
        release=f"headrace-worker@{release}",
        # A local variable of a model holds feature values, and so may a task's arguments.
        include_local_variables=False,
        send_default_pii=False,
        integrations=[CeleryIntegration()],
        before_send=_without_arguments,
    )
    return True


def _without_arguments(event: Event, hint: Hint) -> Event:  # noqa: ARG001  # Sentry's signature
    # The Celery integration attaches args and kwargs of the task: the instances.
    event.get("extra", {}).pop("celery-job", None)
    return event


def report(error: BaseException, admitted: Admitted) -> None:
    """Send an error of a model, with the job it was raised for."""
    if not sentry_sdk.is_initialized():
        return
    job, manifest = admitted.job, admitted.model.manifest
    with sentry_sdk.new_scope() as scope:
        scope.set_tag("headrace.model", manifest.name)
        scope.set_tag("headrace.version", manifest.version)
        scope.set_tag("headrace.job", job.id)
        scope.fingerprint = ["{{ default }}", manifest.name, manifest.version]

        def strike(event: Event, hint: Hint) -> Event:  # noqa: ARG001  # Sentry's signature
            for value in event.get("exception", {}).get("values", []):
                value["value"] = strike_out(str(value.get("value") or ""), job.instances)
            return event

        scope.add_event_processor(strike)
        sentry_sdk.capture_exception(error)
