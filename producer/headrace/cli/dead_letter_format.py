"""How dead letters look on a terminal. Nothing of an instance is shown unless asked for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from headrace.cli import options
from headrace.cli.options import printable
from headrace.dead_letters.bulk import BulkResult
from headrace.dead_letters.filter import from_unix_ms
from headrace.dead_letters.groups import DeadLetterGroup
from headrace.errors import InvalidInput
from headrace.text import plural
from headrace.wire.attempts import REPLAY, Attempt
from headrace.wire.dead_letter import DeadLetter, DeadLetterWithMessage
from headrace.wire.parsing import MalformedMessage, parse

#: Characters of a storm's message in a table; bytes shown of a message that is no job.
_MESSAGE, _HEAD = 72, 256


def storm_table(storms: Sequence[DeadLetterGroup]) -> list[str]:
    """Storms as lines of a table."""
    rows = [["COUNT", "MODEL", "REASON", "ERROR", "OLDEST", "NEWEST", "EXAMPLE", "MESSAGE"]]
    for storm in storms:
        message = printable(storm.message)
        rows.append(
            [
                f"{storm.count:,}",
                printable(_model(storm)),
                storm.reason,
                printable(storm.error),
                _when(storm.oldest_ms),
                _when(storm.newest_ms),
                printable(storm.example),
                message if len(message) <= _MESSAGE else f"{message[: _MESSAGE - 4]} ...",
            ]
        )
    return options.table(rows, right={0})


def line(letter: DeadLetter) -> str:
    """A letter as a line: id, moment, model, reason and error, with tabs between them."""
    said = printable(f"{letter.error}: {letter.message}")
    return "\t".join([printable(letter.id), _when(letter.died_ms), printable(_model(letter)), letter.reason, said])


def page(kept: DeadLetterWithMessage, *, payload: bool) -> Iterator[str]:
    """A letter with its history; with `payload` the instances of its job, or the head of bytes that are none."""
    rows = "" if kept.instances is None else f", {plural(kept.instances, 'instance')}"
    yield f"letter     {printable(kept.id)}"
    yield f"died       {_when(kept.died_ms)} on {printable(kept.worker) or 'an unknown worker'}"
    yield f"job        {printable(_model(kept))}{rows}, from {printable(kept.queue) or 'an unknown queue'}"
    yield f"reason     {kept.reason}"
    yield f"error      {printable(f'{kept.module}.{kept.error}: {kept.message}')}"
    yield f"message    {len(kept.payload):,} bytes"
    for name, value in (kept.metadata or {}).items():
        yield f"metadata   {printable(f'{name}={value}')}"
    for attempt in kept.attempts:
        yield f"attempt    {printable(_attempt(attempt))}"
    if kept.traceback is not None:
        yield "traceback"
        yield from (f"  {printable(part)}" for part in kept.traceback.splitlines())
    if payload:
        yield from _payload(kept)


def details(kept: DeadLetterWithMessage, *, payload: bool) -> dict[str, Any]:
    """The same as a JSON object: the letter, the size of its message, and what is in it where asked for."""
    found: dict[str, Any] = msgspec.to_builtins(kept)
    found["payload_bytes"] = len(kept.payload)
    if not payload:
        del found["payload"]
        return found
    instances = _instances(kept)
    return found if instances is None else {**found, "instances": instances}


def tally(done: BulkResult, verb: str) -> Iterator[str]:
    """What a replay or purge has done, in lines; `verb` is what it did."""
    yield f"{letters(done.done)} {verb}"
    if done.malformed:
        yield f"{letters(done.malformed)} not: their bytes are no job; mend what sends them, then purge them"
    if done.id_in_use:
        yield f"{letters(done.id_in_use)} not: the id has another outcome by now, or another job under way"
    if done.already_handled:
        yield f"{letters(done.already_handled)} not: replayed or purged meanwhile, or dead once more since"


def letters(count: int) -> str:
    """So many dead letters."""
    return f"{count:,} dead letter{'' if count == 1 else 's'}"


def _when(ms: int) -> str:
    return from_unix_ms(ms).strftime("%Y-%m-%dT%H:%M:%SZ")


def _model(one: DeadLetter | DeadLetterGroup) -> str:
    if one.model is None:
        return "-"
    return f"{one.model}@{one.version}" if one.version else one.model


def _attempt(attempt: Attempt) -> str:
    if attempt.cause == REPLAY:
        return f"{_when(attempt.at_ms)} replay by {attempt.owner}"
    others = attempt.claim_size - 1
    company = f"with {others:,} other job{'' if others == 1 else 's'}" if others else "alone"
    return f"{_when(attempt.at_ms)} {attempt.cause} on {attempt.owner}, {company}"


def _payload(kept: DeadLetterWithMessage) -> Iterator[str]:
    instances = _instances(kept)
    if instances is None:
        more = f", the first {_HEAD}" if len(kept.payload) > _HEAD else ""
        yield f"payload ({len(kept.payload):,} bytes{more})"
        yield f"  {kept.payload[:_HEAD]!r}"
        return
    yield f"payload ({len(instances):,} instance{'' if len(instances) == 1 else 's'})"
    yield from (f"  {printable(msgspec.json.encode(instance).decode())}" for instance in instances)


def _instances(kept: DeadLetterWithMessage) -> Sequence[Any] | None:
    try:
        return parse(kept.payload).to_job().instances
    except (MalformedMessage, InvalidInput):
        return None
