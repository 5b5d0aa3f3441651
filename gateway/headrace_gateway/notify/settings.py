"""Settings of the notifier."""

from __future__ import annotations

from typing import Annotated

import msgspec

from headrace.settings import Seconds, Settings
from headrace_gateway.notify.schedule import SCHEDULE


class NotifySettings(Settings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The settings of a producer, and those of the notifier."""

    #: The TOML file of the endpoints (`headrace_gateway.notify.endpoints`), read again when it changes.
    notify: str = ""
    #: Most requests at once.
    notify_concurrency: Annotated[int, msgspec.Meta(gt=0, le=1_000)] = 64
    #: Seconds for one request and its answer.
    notify_timeout: Seconds = 15.0
    #: Seconds before each attempt, separated by commas.
    notify_schedule: str = ",".join(f"{delay:g}" for delay in SCHEDULE)
    #: Seconds between two searches for outcomes that were stored without their notice.
    notify_sweep: Seconds = 30.0
    #: Address and port of health and metrics; port 0 is no server.
    notify_metrics_address: str = "127.0.0.1"
    notify_metrics_port: Annotated[int, msgspec.Meta(ge=0, le=65_535)] = 0
    #: Most dead letters of notices, and the seconds each is kept.
    dead_letters_max: Annotated[int, msgspec.Meta(gt=0)] = 100_000
    dead_letters_ttl: Annotated[int, msgspec.Meta(gt=0)] = 30 * 86_400
