"""Settings of `headrace flower`."""

from __future__ import annotations

from typing import Annotated

import msgspec

from headrace_worker.settings import CanarySettings


class DashboardSettings(CanarySettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The settings of a producer, the limits of canaries, and the settings of the dashboard."""

    #: Logins, each `user:password`, separated by commas.
    flower_login: str = ""
    #: Serve the pages without a login, to everybody who reaches the address.
    flower_open: bool = False
    #: Allow changes: replay and purge dead letters, revoke jobs, stop workers.
    flower_actions: bool = False
    #: Show arguments and results of ordinary Celery tasks, and results of jobs.
    flower_payloads: bool = False
    #: The address of a trace in your tracing system, with `{trace}` in place of its id; "" shows the id alone.
    flower_trace_url: Annotated[str, msgspec.Meta(pattern=r"^(https?://.*\{trace\}.*)?$")] = ""
