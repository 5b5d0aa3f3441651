"""The canvas of a job: the tasks that Celery's `link`, `chain`, `group` and `chord` connect it with.

A message holds them as Celery's protocol 2 says: the ids in its headers, the signatures of the tasks that follow
in the last item of its body. Few jobs have any.
"""

from __future__ import annotations

from typing import Any

import msgspec

from headrace.errors import InvalidInput

#: Most bytes of the signatures in a message, as JSON, and the deepest nesting of their objects and lists.
MAX_SIGNATURE_BYTES, MAX_SIGNATURE_DEPTH = 1024 * 1024, 100

Signature = dict[str, Any]
#: The types of signatures that may follow a job. None is a task.
_TYPES = (None, "chain", "group", "chord")


class Canvas(msgspec.Struct, frozen=True, kw_only=True):
    """The tasks and groups that a job is connected with, as its message names them."""

    #: The first task of the canvas, and the task before this job.
    root_id: str | None = None
    parent_id: str | None = None
    #: The group of the job, and its index there.
    group: str | None = None
    group_index: int | None = None
    #: True if the message has a signature that was verified: what follows is signed too.
    signed: bool = False
    #: Signatures to run after a success, after a failure, and the further links of a chain, the next one last.
    callbacks: list[Signature] = []
    errbacks: list[Signature] = []
    chain: list[Signature] = []
    #: The body of the chord that the job is in the header of.
    chord: Signature | None = None

    @property
    def has_follow_ups(self) -> bool:
        """True if anything follows the job's outcome."""
        return bool(self.callbacks or self.errbacks or self.chain or self.chord)


class CanvasHeaders(msgspec.Struct):
    """The headers of a message that name other tasks."""

    root_id: str | None = None
    parent_id: str | None = None
    group: str | None = None
    group_index: int | None = None


class MessageWithCanvas(msgspec.Struct):
    """A message, with nothing of it but those headers."""

    headers: CanvasHeaders


class Embedded(msgspec.Struct):
    """The last item of a body, as it was decoded: nothing is checked."""

    callbacks: Any = None
    errbacks: Any = None
    chain: Any = None
    chord: Any = None


class _Signatures(msgspec.Struct):
    callbacks: list[Signature] | None = None
    errbacks: list[Signature] | None = None
    chain: list[Signature] | None = None
    chord: Signature | None = None


def decode_canvas(headers: CanvasHeaders, embedded: Embedded, *, signed: bool) -> Canvas:
    """Return the canvas of a message, from its headers and from the last item of its body.

    Raises InvalidInput for values that Celery would not write, and for more than a worker handles.
    """
    try:
        signatures = msgspec.convert(msgspec.to_builtins(embedded), _Signatures)
        size = len(msgspec.json.encode(signatures))
    except (msgspec.ValidationError, RecursionError) as error:
        raise InvalidInput(f"the callbacks, chain, chord or group of the job are invalid: {error}") from None
    if size > MAX_SIGNATURE_BYTES or _depth(embedded) > MAX_SIGNATURE_DEPTH:
        raise InvalidInput(
            f"the callbacks, chain and chord of the job take {size:,} bytes as JSON; at most "
            f"{MAX_SIGNATURE_BYTES:,} bytes in objects and lists nested {MAX_SIGNATURE_DEPTH} deep are taken; "
            "pass large values by reference"
        )
    _check_types(signatures)
    return Canvas(
        root_id=headers.root_id,
        parent_id=headers.parent_id,
        group=headers.group,
        group_index=headers.group_index,
        signed=signed,
        callbacks=signatures.callbacks or [],
        errbacks=signatures.errbacks or [],
        chain=signatures.chain or [],
        chord=signatures.chord,
    )


def _check_types(canvas: _Signatures) -> None:
    """Refuse signatures that need a task of Celery's own in the worker. Raises InvalidInput."""
    waiting: list[Any] = [canvas.callbacks, canvas.errbacks, canvas.chain, canvas.chord]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            if "subtask_type" in value and value["subtask_type"] not in _TYPES:
                kind = str(value["subtask_type"])[:32]
                raise InvalidInput(f"a {kind} cannot follow a job: only tasks, chains, groups and chords can")
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value


def _depth(embedded: Embedded) -> int:
    level: list[Any] = [embedded.callbacks, embedded.errbacks, embedded.chain, embedded.chord]
    depth = 0
    while level:
        depth += 1
        level = [child for item in level for child in _children(item)]
    return depth


def _children(value: object) -> list[Any]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []
