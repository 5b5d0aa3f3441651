"""What Flower can be told, beyond what a producer can."""

from __future__ import annotations

from headrace.settings import Settings


class DashboardSettings(Settings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The settings of `headrace flower`: those of a producer, and these."""

    #: Who may look: `user:password`, with commas between several.
    flower_login: str = ""
    #: Whether everybody who reaches the address may look, without a login.
    flower_open: bool = False
    #: Whether who may look may also act: replay and purge dead letters, revoke jobs, stop workers.
    flower_actions: bool = False
    #: Whether arguments and results of ordinary tasks, and results of jobs, are shown.
    flower_payloads: bool = False
