"""The claims of one channel as commands: the order in which each takes from its lists, and its script's form."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

from headrace.connection.script_calls import ScriptCall
from headrace.wire.keys import Keys
from headrace_worker.transport.claim_script import claim_command, messages_command
from headrace_worker.transport.claim_states import SentClaim
from headrace_worker.transport.claims import ClaimLimits, IsolatedTurn, Lease

#: One claim of this many starts with the lowest priority, so that jobs of files are never starved. Every second
#: claim starts with the retried jobs of each priority.
_LOWEST_EVERY = 10


class ClaimCommands:
    """The commands of successive claims. `next_name` returns the name of a new lease."""

    def __init__(self, keys: Keys, lease_ms: int, next_name: Callable[[], str]) -> None:
        self._keys, self._lease_ms, self._next_name = keys, lease_ms, next_name
        self._numbers = itertools.count(1)
        self.script_call = ScriptCall()

    def make(
        self,
        limits: Sequence[ClaimLimits],
        parked: Lease | None,
        isolated_turn: IsolatedTurn,
        *,
        tokens: bool,
        earlier_replies: int,
    ) -> tuple[SentClaim, list[Sequence[Any]]]:
        """Return a claim of these queues and its commands, which are sent behind others of `earlier_replies`.

        `parked` and `tokens` are those of `claim_command`.
        """
        name, number = self._next_name(), next(self._numbers)
        command = claim_command(
            self._keys,
            name,
            limits,
            lease_ms=self._lease_ms,
            lowest_first=number % _LOWEST_EVERY == 0,
            isolated=isolated_turn,
            retried_first=(number + number // _LOWEST_EVERY) % 2 == 0,
            parked=parked,
            tokens=tokens,
        )
        sent = SentClaim(name, limits, earlier_replies=earlier_replies, function=str(command.args[1]))
        return sent, [command.in_form(self.script_call.form), messages_command(self._keys, name).args]
