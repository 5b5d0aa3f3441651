"""Paused models: workers claim none of their jobs. Jobs are accepted, and those that are claimed finish.

A hash holds for each paused model who paused it, when and why. Workers see within a second that it changed, which
costs a claim nothing.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec
from redis.exceptions import NoPermissionError, ResponseError

from headrace.catalog.changes import count_change
from headrace.catalog.published import check_published
from headrace.clock import from_unix_ms
from headrace.connection.commands import Command, Operation
from headrace.connection.errors import is_wrong_type
from headrace.errors import InvalidInput
from headrace.wire.keys import Keys
from headrace.wire.stored import decode_items, hash_items, report_damaged

#: Characters of a reason.
_MAX_REASON = 500


class Pause(msgspec.Struct, frozen=True, kw_only=True):
    """The pause of a model."""

    #: The user and host that paused it.
    by: str
    #: The moment, unix milliseconds of that host's clock.
    at_ms: int
    #: The reason that was stated; "" without one.
    reason: str = ""

    def __str__(self) -> str:
        moment = from_unix_ms(self.at_ms).strftime("%Y-%m-%d %H:%M:%S UTC")
        return f"paused by {self.by} at {moment}{self.reason and f': {self.reason}'}"


def pause(keys: Keys, model: str, *, by: str, reason: str, now: datetime) -> Operation[Pause]:
    """Pause a model and return the pause. It replaces an earlier one. Raises UnknownModel and InvalidInput."""
    yield from check_published(keys, model)
    stated = Pause(by=by, at_ms=int(now.timestamp() * 1000), reason=check_reason(reason))
    yield Command(("HSET", keys.paused, model, msgspec.json.encode(stated)))
    yield from count_change(keys)
    return stated


def check_reason(reason: str) -> str:
    """Return the reason of a pause. Raises InvalidInput if it is too long."""
    if len(reason) > _MAX_REASON:
        raise InvalidInput(f"the reason of a pause has {len(reason)} characters, at most {_MAX_REASON} are stored")
    return reason


def resume(keys: Keys, model: str) -> Operation[bool]:
    """End the pause of a model. Return False if it was not paused. Raises UnknownModel."""
    removed: int = yield Command(("HDEL", keys.paused, model))
    if removed:
        yield from count_change(keys)
    else:
        yield from check_published(keys, model)
    return bool(removed)


def read_pauses(keys: Keys) -> Operation[dict[str, Pause]]:
    """Read the pauses by model; none where the Redis user may not read them, or the key is of another type."""
    try:
        return decode_pauses((yield pauses_command(keys)))
    except ResponseError as error:
        return decode_pauses(error)


def pauses_command(keys: Keys) -> Command:
    """Return the command that reads the pauses; `decode_pauses` decodes its reply."""
    return Command(("HGETALL", keys.paused))


def decode_pauses(reply: Any) -> dict[str, Pause]:
    """Decode the fields and values of the hash, or the error in place of them, as `read_pauses` says.

    A model with a damaged value is paused, too. Raises the error if it is another one.
    """
    if isinstance(reply, NoPermissionError):
        return {}
    if isinstance(reply, Exception):
        if not (isinstance(reply, ResponseError) and is_wrong_type(reply)):
            raise reply
        report_damaged(_NAME, reply)
        return {}
    items = list(hash_items(reply, _NAME))
    pauses = {model.decode(errors="replace"): Pause(by="unknown", at_ms=0) for model, _ in items}
    return {**pauses, **dict(decode_items(_PAUSE.decode, items, _NAME))}


_PAUSE = msgspec.json.Decoder(Pause)
#: The name of the hash in messages.
_NAME = "the paused models"
