"""The modules with scripts of workers. `headrace redis install` imports it, to load the scripts as functions."""

from headrace.results import letter_scripts, started
from headrace_worker.bulk import run_state
from headrace_worker.rollout import version_stats
from headrace_worker.transport import (
    claim_script,
    follow_up_scripts,
    lease_scripts,
    publish_script,
    run_script,
)

__all__ = [
    "claim_script",
    "follow_up_scripts",
    "lease_scripts",
    "letter_scripts",
    "publish_script",
    "run_script",
    "run_state",
    "started",
    "version_stats",
]
