"""The text of dead letters on a terminal. Instances are printed only with `payload`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from headrace.cli.tables import escape_unprintable, format_table
from headrace.clock import from_unix_ms
from headrace.dead_letters.bulk import BulkResult
from headrace.dead_letters.groups import DeadLetterGroup
from headrace.errors import InvalidInput
from headrace.inspection.timeline import describe_claim_size
from headrace.text import format_age, plural
from headrace.wire.attempts import REPLAY, Attempt
from headrace.wire.dead_letter import DeadLetter, DeadLetterWithMessage
from headrace.wire.parsing import MalformedMessage, parse


class ShownDeadLetter(DeadLetter, frozen=True, kw_only=True):
    """A dead letter with the size of its message, and with `--payload` its content."""

    #: The size of the message.
    payload_bytes: int
    #: With `--payload`: the message as it was in the queue, in base64.
    payload: bytes | msgspec.UnsetType = msgspec.UNSET
    #: With `--payload`: the instances in the message, if it is a job.
    payload_instances: list[Any] | msgspec.UnsetType = msgspec.UNSET


#: Bytes printed of a message that is not a job.
_PAYLOAD_BYTES = 256


def format_groups(groups: Sequence[DeadLetterGroup], now_ms: int, *, width: int | None = None) -> list[str]:
    """Return a table with a line for each group, in `width` characters; None is any width."""
    rows = [["COUNT", "MODEL", "REASON", "ERROR", "OLDEST", "NEWEST", "EXAMPLE", "MESSAGE"]]
    for group in groups:
        rows.append(
            [
                f"{group.count:,}",
                _format_model(group),
                group.reason,
                group.error,
                format_age((now_ms - group.oldest_ms) / 1000),
                format_age((now_ms - group.newest_ms) / 1000),
                group.example,
                group.message,
            ]
        )
    return format_table(rows, right={0, 4, 5}, drops={4: 4, 6: 3, 5: 2, 2: 1}, texts={7}, width=width)


def format_line(letter: DeadLetter) -> str:
    """Return a letter as one line: id, moment, model, reason and error, separated by tabs."""
    error = escape_unprintable(f"{letter.error}: {letter.message}")
    model = escape_unprintable(_format_model(letter))
    return "\t".join([escape_unprintable(letter.id), _format_time(letter.died_ms), model, letter.reason, error])


def format_letter(letter: DeadLetterWithMessage, *, payload: bool) -> Iterator[str]:
    """Yield a letter with its history as lines.

    With `payload`, the last lines are the instances of its job, or the first bytes of a message that is not a job.
    """
    instances = "" if letter.instances is None else f", {plural(letter.instances, 'instance')}"
    yield f"letter     {escape_unprintable(letter.id)}"
    worker = escape_unprintable(letter.worker) or "an unknown worker"
    yield f"died       {_format_time(letter.died_ms)} on {worker}"
    yield (
        f"job        {escape_unprintable(_format_model(letter))}{instances}, "
        f"from {escape_unprintable(letter.queue) or 'an unknown queue'}"
    )
    yield f"reason     {letter.reason}"
    yield f"error      {escape_unprintable(f'{letter.module}.{letter.error}: {letter.message}')}"
    yield f"message    {len(letter.payload):,} bytes"
    for name, value in (letter.metadata or {}).items():
        yield f"metadata   {escape_unprintable(f'{name}={value}')}"
    for attempt in letter.attempts:
        yield f"attempt    {escape_unprintable(_format_attempt(attempt))}"
    if letter.traceback is not None:
        yield "traceback"
        yield from (f"  {escape_unprintable(line)}" for line in letter.traceback.splitlines())
    if payload:
        yield from _format_payload(letter)


def to_json_object(letter: DeadLetterWithMessage, *, payload: bool) -> ShownDeadLetter:
    """Return a letter with the size of its message; with `payload`, its message and its instances too."""
    fields = {name: getattr(letter, name) for name in DeadLetter.__struct_fields__}
    shown = ShownDeadLetter(**fields, payload_bytes=len(letter.payload))
    if not payload:
        return shown
    instances = _read_instances(letter)
    return msgspec.structs.replace(
        shown,
        payload=letter.payload,
        payload_instances=msgspec.UNSET if instances is None else list(instances),
    )


def format_result(result: BulkResult, verb: str) -> Iterator[str]:
    """Yield the result of a replay or purge as lines; `verb` is `replayed`, `would be purged` and the like."""
    yield f"{_format_count(result.done)} {verb}"
    if result.malformed:
        count = _format_count(result.malformed)
        yield (f"{count} left in place: their bytes are not a job; correct their sender, then purge them")
    if result.id_in_use:
        count = _format_count(result.id_in_use)
        yield f"{count} left in place: the id has another outcome, or another job under way"
    if result.already_handled:
        count = _format_count(result.already_handled)
        yield f"{count} skipped: replayed or purged meanwhile, or replaced by a newer one"


def _format_count(letters: int) -> str:
    return plural(letters, "dead letter")


def _format_time(unix_ms: int) -> str:
    return from_unix_ms(unix_ms).strftime("%Y-%m-%dT%H:%M:%SZ")


def _format_model(letter: DeadLetter | DeadLetterGroup) -> str:
    if letter.model is None:
        return "-"
    return f"{letter.model}@{letter.version}" if letter.version else letter.model


def _format_attempt(attempt: Attempt) -> str:
    if attempt.cause == REPLAY:
        return f"{_format_time(attempt.at_ms)} replay by {attempt.owner}"
    others = describe_claim_size(attempt.claim_size)
    return f"{_format_time(attempt.at_ms)} {attempt.cause} on {attempt.owner}, {others}"


def _format_payload(letter: DeadLetterWithMessage) -> Iterator[str]:
    instances = _read_instances(letter)
    if instances is None:
        excerpt = f", the first {_PAYLOAD_BYTES}" if len(letter.payload) > _PAYLOAD_BYTES else ""
        yield f"payload ({len(letter.payload):,} bytes{excerpt})"
        yield f"  {letter.payload[:_PAYLOAD_BYTES]!r}"
        return
    yield f"payload ({plural(len(instances), 'instance')})"
    yield from (f"  {escape_unprintable(msgspec.json.encode(instance).decode())}" for instance in instances)


def _read_instances(letter: DeadLetterWithMessage) -> Sequence[Any] | None:
    try:
        return parse(letter.payload).to_job().instances
    except (MalformedMessage, InvalidInput):
        return None
