"""All scenarios, by number: the modules of faults register them."""

from tests.chaos import (  # noqa: F401  # each registers its scenarios
    bulk_faults,
    bulk_s3,
    cluster_faults,
    foreign_messages,
    gateway_faults,
    kill_faults,
    network_faults,
    notifier_faults,
    poison_jobs,
    redis_faults,
    timing_faults,
)
from tests.chaos.scenario import SCENARIOS

__all__ = ["SCENARIOS"]
