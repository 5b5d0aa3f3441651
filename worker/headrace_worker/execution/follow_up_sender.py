"""Carry out what follows outcomes: at once after they are published, or later what a lost worker left."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

import msgspec
import redis
from celery.app.task import Context
from kombu.utils.json import loads

from headrace.connection.commands import execute
from headrace.wire.keys import Keys
from headrace.wire.queues import TASK
from headrace_worker.execution.canvas_app import CanvasApp, ChordPart
from headrace_worker.execution.follow_ups import FollowUps
from headrace_worker.transport.follow_up_scripts import (
    decode_taken,
    drop_command,
    fail_command,
    postpone_command,
    send_command,
    take_command,
)

log = logging.getLogger("headrace.claims")

#: Milliseconds until a refused write is tried again: an administrator may have to change something first.
_RETRY_MS = 60_000
_DECODER = msgspec.json.Decoder(FollowUps)


class FollowUpSender:
    """Carries out follow-ups. `connect` returns the client of this process; `make_app` makes the canvas app.

    `lease_ms` is the time after which follow-ups that were taken may be taken by another worker, and `ttl` the
    seconds for which outcomes are kept. Follow-ups that cannot be sent for as long are dropped.
    """

    def __init__(
        self,
        connect: Callable[[], redis.Redis],
        keys: Keys,
        make_app: Callable[[], CanvasApp],
        *,
        lease_ms: int,
        ttl: int,
    ) -> None:
        self._connect, self._keys, self._make_app = connect, keys, make_app
        self.lease_ms, self._ttl = lease_ms, ttl

    def send_due(self) -> int:
        """Send what lost workers left. Return the number of jobs it follows. Raises redis.RedisError."""
        reply = execute(self._connect(), take_command(self._keys, hold_ms=self.lease_ms))
        now_ms, members = decode_taken(reply)
        self.send(members, now_ms)
        return len(members)

    def send(self, members: Iterable[bytes], now_ms: int = 0) -> None:
        """Send follow-ups as they are stored. What fails is logged, stays stored, and is tried again later.

        `now_ms` is the server's unix milliseconds; 0 leaves their age unchecked. Raises nothing.
        """
        for member in members:
            try:
                follow_ups = _DECODER.decode(member)
            except (msgspec.DecodeError, RecursionError) as error:
                log.error("dropped an entry of %s that is none: %s", self._keys.follow_ups, type(error).__name__)  # noqa: TRY400
                self._run(member, drop=True)
                continue
            try:
                self._send(member, follow_ups)
            except redis.ConnectionError as error:
                log.warning("cannot send what follows job %s, retrying later: %s", follow_ups.job, error)
            except Exception as error:  # noqa: BLE001  # one job's follow-ups must not stop those of the others
                is_old = now_ms and now_ms - follow_ups.planned_ms > 1000 * self._ttl
                log.error(  # noqa: TRY400  # the traceback may quote a result
                    "cannot send what follows job %s%s: %s",
                    follow_ups.job,
                    ", and it is dropped" if is_old else f", retrying in {_RETRY_MS // 1000} s",
                    error if isinstance(error, redis.RedisError) else type(error).__name__,
                )
                self._run(member, drop=bool(is_old))

    def _run(self, member: bytes, *, drop: bool) -> None:
        command = drop_command(self._keys, member) if drop else None
        try:
            execute(self._connect(), command or postpone_command(self._keys, member, delay_ms=_RETRY_MS))
        except redis.RedisError as error:
            log.warning("cannot put off what follows a job: %s", error)

    def _send(self, member: bytes, follow_ups: FollowUps) -> None:
        # Parts of a chord are added by Celery's own script, so what is not stored any more must be known before.
        if follow_ups.chord_parts:
            if self._connect().zscore(self._keys.follow_ups, member) is None:
                return
            # Whoever waits for the body of the chord must find the error of its header before that of the body.
            for task, failure in follow_ups.failures:
                execute(self._connect(), fail_command(self._keys, task, failure, ttl=self._ttl))
        is_waiting = False
        for chord_part in follow_ups.chord_parts:
            is_waiting = not self._add_to_chord(chord_part, signed=follow_ups.signed) or is_waiting
        if not is_waiting:
            execute(self._connect(), send_command(self._keys, member, follow_ups, ttl=self._ttl))

    def _add_to_chord(self, chord_part: ChordPart, *, signed: bool) -> bool:
        """Add a part to its chord; the last one starts the body. Return False while another worker is starting it.

        That worker may have been killed. The part is added again later, which changes nothing if it was not.
        """
        app = self._make_app()
        request = Context(
            id=chord_part.id,
            task=TASK,
            root_id=chord_part.root_id,
            called_directly=False,
            group=chord_part.group,
            group_index=chord_part.group_index,
            chord=loads(chord_part.chord),
            delivery_info={},
        )
        with app.as_current(request, sign=signed):
            app.backend.on_chord_part_return(request, chord_part.state, chord_part.result)
        return self._connect().get(app.backend.get_key_for_group(chord_part.group, ".c")) in {None, b"done"}
