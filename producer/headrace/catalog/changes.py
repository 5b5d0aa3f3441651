"""The count of changes of aliases and pauses, which workers read once a second in place of the aliases themselves.

Whoever changes an alias or a pause counts the change. A change that was not counted, as by an older Headrace or a
user who may not count, is found by the keeper of the workers a few seconds later.
"""

from __future__ import annotations

import redis
from redis.exceptions import NoPermissionError, ResponseError

from headrace.connection.commands import Command, Operation, execute
from headrace.wire.keys import Keys


def count_change(keys: Keys) -> Operation[None]:
    """Count a change that was made. A user who may not, or a key of another type, costs the workers seconds."""
    try:
        yield _count_command(keys)
    except (NoPermissionError, ResponseError):
        return


def count_change_with(client: redis.Redis, keys: Keys) -> None:
    """Count a change that was made, as `count_change`, on a client."""
    try:
        execute(client, _count_command(keys))
    except ResponseError:
        return


def _count_command(keys: Keys) -> Command:
    return Command(("INCRBY", keys.changes, 1))
