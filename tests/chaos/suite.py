"""All scenarios, by number: the modules of faults register them."""

from tests.chaos import (  # noqa: F401  # each registers its scenarios
    blocking_faults,
    bulk_faults,
    bulk_s3,
    cluster_faults,
    fleet_faults,
    foreign_messages,
    gateway_faults,
    kill_faults,
    listener_faults,
    network_faults,
    notifier_faults,
    poison_jobs,
    redis_faults,
    redis_upgrade,
    release_faults,
    step_faults,
    timing_faults,
)
from tests.chaos.scenario import SCENARIOS

__all__ = ["SCENARIOS"]
