"""The notices of an installation: how many wait, how many are late, and the last error of each endpoint."""

from __future__ import annotations

import msgspec
from redis.exceptions import ResponseError

from headrace.connection.commands import Operation, Pipeline
from headrace.results.notice_scripts import EndpointError
from headrace.wire.keys import Keys
from headrace.wire.stored import decode_items, hash_items

#: Milliseconds after which a notice that is due counts as late: notifiers look several times a second.
LATE_MS = 60_000

_ERROR = msgspec.json.Decoder(EndpointError)


class NoticeState(msgspec.Struct, frozen=True, kw_only=True):
    """The notices at one moment."""

    #: Jobs under way whose outcome is to be notified.
    open: int = 0
    #: Notices that are not delivered, and those of them whose attempt has been due for LATE_MS.
    waiting: int = 0
    late: int = 0
    #: The last error of endpoints, by name.
    errors: dict[str, EndpointError] = {}


def count_commands(keys: Keys, now_ms: int) -> tuple[tuple[str | int, ...], ...]:
    """Return the commands that count jobs under way, notices and late notices; see `NoticeState`."""
    return (
        ("ZCARD", keys.notices_open),
        ("ZCARD", keys.notices_due),
        ("ZCOUNT", keys.notices_due, "-inf", now_ms - LATE_MS),
    )


def read_notices(keys: Keys, now_ms: int) -> Operation[NoticeState | None]:
    """Read the notices; None where this user may not. `now_ms` is the server's unix milliseconds."""
    replies = yield Pipeline((*count_commands(keys, now_ms), ("HGETALL", keys.endpoints)))
    *counts, errors = replies
    if any(isinstance(reply, ResponseError) for reply in counts):
        return None
    opened, waiting, late = counts
    items = () if isinstance(errors, ResponseError) else hash_items(errors, "the errors of endpoints")
    by_name = dict(decode_items(_ERROR.decode, items, "the errors of endpoints"))
    return NoticeState(open=opened, waiting=waiting, late=late, errors=by_name)
