"""The modules with scripts of workers. `headrace redis install` imports it, to load the scripts as functions."""

from headrace.results import started
from headrace_worker.rollout import version_stats
from headrace_worker.transport import (
    claim_script,
    follow_up_scripts,
    lease_scripts,
    letter_scripts,
    publish_script,
)

__all__ = [
    "claim_script",
    "follow_up_scripts",
    "lease_scripts",
    "letter_scripts",
    "publish_script",
    "started",
    "version_stats",
]
