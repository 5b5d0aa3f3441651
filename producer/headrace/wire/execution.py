"""How a job came to its outcome: kept beside the outcome, so that it can be told of any job at any time.

It is written with the outcome, in the same step, and costs no round trip: some hundred bytes a job. Celery's
clients ignore it, but for `worker`, which is their `AsyncResult.worker`.
"""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec

from headrace.wire.attempts import Attempt


class Execution(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """The run that ended a job. As JSON it is a list, to be short: what is added to it goes last."""

    #: The claim's lease: host, process and number of who claimed.
    lease: str
    #: When it was claimed, the server's unix milliseconds, and the jobs in the claim: 1 is alone.
    claimed_ms: int
    claim_size: int
    #: The version that predicted, and its runtime; None where nothing was predicted.
    version: str | None = None
    runtime: str | None = None
    #: Milliseconds from the claim to the predict call of its batch, and those the call took; rows of the batch.
    started_ms: int = 0
    duration_ms: float = 0.0
    instances: int = 0
    #: The runs before this one, oldest first.
    attempts: tuple[Attempt, ...] = ()

    def encode(self) -> msgspec.Raw:
        """The run as JSON."""
        return msgspec.Raw(msgspec.json.encode(self))


class Completion(msgspec.Struct, frozen=True, kw_only=True):
    """What a stored outcome tells besides the outcome."""

    #: When it was published, ISO 8601.
    date_done: str | None = None
    #: The worker's name, as Celery has it.
    worker: str | None = None
    execution: Execution | None = None

    @property
    def published_ms(self) -> int | None:
        """When it was published, in unix milliseconds."""
        try:
            moment = datetime.fromisoformat(self.date_done or "")
        except ValueError:
            return None
        # Celery leaves the zone out when it means UTC.
        return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)


_ENDED = msgspec.json.Decoder(Completion)


def decode_completion(stored: bytes) -> Completion:
    """How a job came to the outcome that is stored; nothing where no worker of ours wrote it."""
    try:
        return _ENDED.decode(stored)
    except (msgspec.DecodeError, RecursionError):
        return Completion()
