"""The configurations in which the model of the claim protocol is checked, and the faults planted in it."""

from __future__ import annotations

import msgspec


class Configuration(msgspec.Struct, frozen=True, kw_only=True):
    """One run of spin: the model with some definitions."""

    name: str
    #: What can happen in it, as a phrase for the table.
    content: str
    #: The definitions of the model: `CANCELS=0`, `NO_BLOCKING`.
    defines: tuple[str, ...]
    #: True for the promise that every job ends, under weak fairness; False for the promises after each step.
    is_liveness: bool = False
    #: True if `make test` checks it too.
    is_short: bool = False


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """A safeguard of the protocol that is taken out of the model, to see that the check finds it."""

    #: The definition: `FAULT_NO_SWEEP`.
    name: str
    #: The safeguard that is missing, as a phrase for the table.
    safeguard: str
    #: The name of the configuration in which the fault must be found.
    configuration: str
    is_short: bool = False


def _bounds(failures: int, *, cancels: int = 0, replays: int = 0) -> tuple[str, ...]:
    return (f"FAILURES={failures}", f"CANCELS={cancels}", f"REPLAYS={replays}")


CONFIGURATIONS = (
    Configuration(
        name="claims",
        content="3 failures",
        defines=("NO_BLOCKING", *_bounds(3)),
    ),
    Configuration(
        name="claims, short",
        content="1 failure",
        defines=("NO_BLOCKING", *_bounds(1)),
        is_short=True,
    ),
    Configuration(
        name="cancel and replay",
        content="1 cancellation, 1 replay, 1 failure",
        defines=("NO_BLOCKING", *_bounds(1, cancels=1, replays=1)),
    ),
    Configuration(
        name="blocking claims",
        content="1 failure",
        defines=_bounds(1),
    ),
    Configuration(
        name="blocking claims, late bytes",
        content="2 failures; no job fails",
        defines=("ONLY_SUCCESS", *_bounds(2)),
    ),
    Configuration(
        name="blocking claims, short",
        content="1 failure; no job fails",
        defines=("ONLY_SUCCESS", *_bounds(1)),
        is_short=True,
    ),
    Configuration(
        name="three jobs",
        content="3 jobs, 1 failure",
        defines=("JOBS=3", "NO_BLOCKING", *_bounds(1)),
    ),
    Configuration(
        name="failover",
        content="1 failover that loses the last writes, 1 failure",
        defines=("FAILOVER", "NO_BLOCKING", *_bounds(1)),
    ),
    Configuration(
        name="two versions",
        content="a worker of the former version beside a new one, 1 failure; no job fails",
        defines=("TWO_VERSIONS", "ONLY_SUCCESS", *_bounds(1)),
    ),
    Configuration(
        name="former version",
        content="2 workers of the former version, no late bytes, 1 failure; no job fails",
        defines=("FORMER", "ONLY_SUCCESS", *_bounds(1)),
    ),
    Configuration(
        name="every job ends",
        content="1 failure",
        defines=("LIVE", "NO_BLOCKING", *_bounds(1)),
        is_liveness=True,
    ),
    Configuration(
        name="every job ends, blocking",
        content="no failure; no job fails",
        defines=("LIVE", "ONLY_SUCCESS", *_bounds(0)),
        is_liveness=True,
    ),
    Configuration(
        name="every poison job ends",
        content="any number of crashes of pool processes; no job fails",
        defines=("LIVE", "POISON", "NO_BLOCKING", "ONLY_SUCCESS", *_bounds(0)),
        is_liveness=True,
    ),
)

FAULTS = (
    Fault(
        name="FAULT_PUBLISH_WITHOUT_FENCE",
        safeguard="a worker that has lost its lease cannot publish",
        configuration="claims, short",
        is_short=True,
    ),
    Fault(
        name="FAULT_OUTCOME_OVERWRITTEN",
        safeguard="the first outcome stays: a job that was cancelled while it ran does not succeed too",
        configuration="cancel and replay",
    ),
    Fault(
        name="FAULT_PUBLISH_IN_TWO_STEPS",
        safeguard="outcomes are stored, and the lease ends, in one step",
        configuration="claims, short",
    ),
    Fault(
        name="FAULT_FAILURE_WITHOUT_LETTER",
        safeguard="a failure and its dead letter are stored in one step",
        configuration="claims, short",
    ),
    Fault(
        name="FAULT_RETRY_KEEPS_THE_LEASE",
        safeguard="a retried job leaves the lease in the step that delays it",
        configuration="claims, short",
    ),
    Fault(
        name="FAULT_CLAIM_IN_TWO_STEPS",
        safeguard="a claim takes jobs and records its lease in one step",
        configuration="claims, short",
    ),
    Fault(
        name="FAULT_RENEW_OF_A_LOST_LEASE",
        safeguard="a lease that was ended cannot be renewed",
        configuration="claims, short",
    ),
    Fault(
        name="FAULT_SWEEP_OF_A_RENEWED_LEASE",
        safeguard="a sweep looks again whether a lease is expired",
        configuration="claims",
    ),
    Fault(
        name="FAULT_REQUEUE_FROM_MEMORY",
        safeguard="an owner requeues what lies under its lease, not what it remembers",
        configuration="claims",
    ),
    Fault(
        name="FAULT_LEASE_NAME_REUSED",
        safeguard="the name of a lease is never used twice",
        configuration="claims, short",
    ),
    Fault(
        name="FAULT_LOST_JOB_NOT_ISOLATED",
        safeguard="a job of a lost run runs alone",
        configuration="claims, short",
    ),
    Fault(
        name="FAULT_GIVEN_UP_FOR_A_SHARED_RUN",
        safeguard="a job is given up only for a run in which it was alone",
        configuration="claims, short",
    ),
    Fault(
        name="FAULT_SUBMIT_WITHOUT_RECORD",
        safeguard="the same id is one job",
        configuration="claims, short",
    ),
    Fault(
        name="FAULT_CANCEL_OVERWRITES",
        safeguard="a job that has ended cannot be cancelled",
        configuration="cancel and replay",
    ),
    Fault(
        name="FAULT_CANCEL_WITHOUT_MARK",
        safeguard="a worker looks for cancellations before it runs a claim",
        configuration="cancel and replay",
    ),
    Fault(
        name="FAULT_REPLAY_UNCHECKED",
        safeguard="a letter is replayed once",
        configuration="cancel and replay",
    ),
    Fault(
        name="FAULT_BLMOVE_BEFORE_LEASE",
        safeguard="a lease is parked before BLMOVE is sent",
        configuration="blocking claims, short",
    ),
    Fault(
        name="FAULT_NO_FENCE_FOR_BLMOVE",
        safeguard="a string in place of the list refuses a late BLMOVE",
        configuration="blocking claims, short",
        is_short=True,
    ),
    Fault(
        name="FAULT_NO_GRACE",
        safeguard="a sweep gives an empty lease ten seconds (alone, without the string)",
        configuration="former version",
    ),
    Fault(
        name="FAULT_NO_UNBLOCK",
        safeguard="an owner ends its wait before it ends the lease (alone, without the string)",
        configuration="former version",
    ),
    Fault(
        name="FAULT_NO_SWEEP",
        safeguard="expired leases are swept",
        configuration="every job ends",
    ),
    Fault(
        name="FAULT_NO_DUE_JOBS",
        safeguard="jobs that are due are moved",
        configuration="every job ends",
    ),
    Fault(
        name="FAULT_LOST_RUN_NOT_COUNTED",
        safeguard="a lost run counts as an attempt",
        configuration="every poison job ends",
    ),
)


def find_configuration(name: str) -> Configuration:
    """Return the configuration of this name."""
    return next(configuration for configuration in CONFIGURATIONS if configuration.name == name)
