r"""A notice: the order to tell an endpoint of the outcome of a job, until it is delivered or a dead letter.

    headrace:notify:open      sorted set: ids of jobs whose outcome is to be notified, by unix milliseconds
    headrace:notify:notices   hash: id of the notice -> the attempts so far, and the notice as JSON
    headrace:notify:due       sorted set: id of the notice by the moment of its next attempt, unix milliseconds

The record of a job names the endpoint (`headrace.wire.record`). The step that stores the first outcome of the job
stores its notice (`headrace.results.notices`). Its id, which is the receiver's `webhook-id`, is the id of the job,
a dot and the status. The attempts are written in front of it as in front of a queued message (`attempts`).
"""

from __future__ import annotations

from typing import Literal, get_args

import msgspec

from headrace.wire.attempts import Attempt, decode_queued_message, encode_queued_message, select_counted
from headrace.wire.record import Record
from headrace.wire.stored import damaged, decode_stored, show

#: The queue that dead letters of notices name. No job is in it.
NOTICE_QUEUE = "headrace.notify"
#: Seconds for which the outcome of a job with a notice is kept at least: longer than all attempts take.
NOTICE_SECONDS = 86_400

NoticeStatus = Literal["success", "failure", "cancelled", "expired"]
NOTICE_STATUSES: tuple[NoticeStatus, ...] = get_args(NoticeStatus)


class NoticeContent(msgspec.Struct, frozen=True, kw_only=True):
    """The content of a notice, as the script that stores an outcome writes it."""

    job: str
    status: NoticeStatus
    #: The moment at which the outcome was stored, unix milliseconds, the server's clock.
    at_ms: int
    record: Record


class Notice(msgspec.Struct, frozen=True, kw_only=True):
    """A notice as it is stored, with its attempts, the oldest first."""

    id: str
    content: NoticeContent
    attempts: tuple[Attempt, ...]
    #: The content as JSON, and the stored bytes.
    message: bytes
    stored: bytes

    @property
    def endpoint(self) -> str:
        """The name of the endpoint; empty if the record names none."""
        return self.content.record.notify or ""

    @property
    def failed_attempts(self) -> int:
        """The number of attempts since the notice was stored or replayed."""
        return len(select_counted(self.attempts))

    def with_attempts(self, attempts: tuple[Attempt, ...]) -> bytes:
        """Return the bytes to store for this notice with other attempts."""
        return encode_queued_message(attempts, self.message)


_CONTENT = msgspec.json.Decoder(NoticeContent)


def decode_notice(notice: str, stored: bytes) -> Notice:
    """Decode a stored notice. Raises StoredDataError."""
    decoded = _decode(f"the notice {show(notice)}", stored)
    if decoded.id != notice:
        raise damaged(f"the notice {show(notice)}", ValueError("another id"))
    return decoded


def decode_notice_message(message: bytes) -> Notice:
    """Decode the message of the dead letter of a notice. Raises StoredDataError."""
    return _decode("the notice", message)


def _decode(name: str, stored: bytes) -> Notice:
    attempts, message = decode_queued_message(stored)
    content = decode_stored(_CONTENT.decode, message, name)
    identifier = notice_id(content.job, content.status)
    return Notice(id=identifier, content=content, attempts=attempts, message=message, stored=stored)


def notice_id(job: str, status: NoticeStatus) -> str:
    """Return the id of the notice of a job that ended with this status."""
    return f"{job}.{status}"
