r"""An ended job that has listeners, until one of them has handled it or it is a dead letter.

    headrace:listen:open   sorted set: ids of jobs under way that have listeners, by unix milliseconds
    headrace:listen:due    sorted set: `Entry`s as text, all with the score 0
    headrace:listen:NAME   channel: an empty message whenever an entry of this name is stored

The record of a job names its listeners (`headrace.wire.record`). The step that stores the first outcome of the job
stores its entry (`headrace.results.notices`): the name, the moment from which it may be claimed, the deliveries so
far, the model and the id of the job, with colons between. Entries of one score are in the order of their text, so
those of a name that are due stand together, the oldest first, and one key serves every name.

To claim an entry is to replace it by one that is due when the claim ends. Whoever holds the text of an entry holds
the claim: every step removes that very text, and does nothing if it has gone.
"""

from __future__ import annotations

from typing import Self

import msgspec

from headrace.wire.names import is_job_id, is_short_name
from headrace.wire.stored import decode_stored

#: The queue that dead letters of entries name. No job is in it.
LISTEN_QUEUE = "headrace.listen"


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """An entry as a listener claimed it."""

    name: str
    #: The moment from which it may be claimed again, unix milliseconds, the server's clock.
    due_ms: int
    #: How many times it was claimed, this one included.
    deliveries: int
    model: str
    job: str

    @classmethod
    def decode(cls, text: bytes) -> Self:
        """Decode the text of an entry. Raises StoredDataError."""
        return decode_stored(cls._decode, text, "an ended job of listeners")

    @classmethod
    def _decode(cls, text: bytes) -> Self:
        name, due_ms, deliveries, model, job = text.decode().split(":", 4)
        if not (is_short_name(name) and is_job_id(job)):
            raise ValueError("a name that no submit accepts")
        return cls(name=name, due_ms=int(due_ms), deliveries=int(deliveries), model=model, job=job)

    def encode(self) -> bytes:
        """Return the text of the entry."""
        return f"{self.name}:{self.due_ms:013}:{self.deliveries}:{self.model}:{self.job}".encode()
