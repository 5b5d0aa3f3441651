"""Errors of models reach Sentry when SENTRY_DSN is set, without payloads.

`start` must run before anything imports `celery.worker.consumer.consumer`: Sentry's Celery integration
patches that module, and afterwards it is too late.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import sentry_sdk
from sentry_sdk.integrations.celery import CeleryIntegration
from sentry_sdk.utils import BadDsn

from headrace.errors import SettingError
from headrace_worker.redaction import strike_out

if TYPE_CHECKING:
    from sentry_sdk.types import Event, Hint

    from headrace_worker.batching import Admitted


def start(release: str) -> bool:
    """Start Sentry if SENTRY_DSN is set; says whether it is. Raises SettingError for a DSN that is none."""
    if not os.environ.get("SENTRY_DSN"):
        return False
    try:
        sentry_sdk.init(
            release=f"headrace-worker@{release}",
            # A local variable of a model holds feature values, and so may a task's arguments.
            include_local_variables=False,
            send_default_pii=False,
            # So may a line that a model logs.
            max_breadcrumbs=0,
            integrations=[CeleryIntegration()],
            before_send=_without_payload,
        )
    except BadDsn:
        raise SettingError("SENTRY_DSN is no DSN; copy it from the project's settings in Sentry") from None
    return True


def _without_payload(event: Event, hint: Hint) -> Event | None:  # noqa: ARG001  # Sentry's signature
    logger = event.get("logger")
    if logger and not logger.startswith("headrace"):
        return None  # what others log as an error may quote anything
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
