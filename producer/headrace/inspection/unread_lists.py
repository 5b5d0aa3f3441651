"""Lists with jobs that no worker reads: a slip in the queue's name, no queue at all, or a separator of its own.

A Celery client may push a job to any list. Workers read the lists of the models they serve (`Keys.lists`,
`Keys.foreign_lists`). All keys are looked through for the others, a page at a time.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable

import msgspec
from redis.exceptions import NoPermissionError

from headrace.catalog.published import list_models
from headrace.connection.commands import Command, Operation, Script
from headrace.inspection.queues import queues_of
from headrace.text import nearest_name, plural
from headrace.wire.bulk import BULK_TASK
from headrace.wire.keys import Keys
from headrace.wire.queues import TASK, queue_name

#: Keys of a page, and most pages: a Redis with more keys is looked through in part.
_PAGE_KEYS, _MAX_PAGES = 1000, 2000
#: Most lists that are returned.
_MAX_LISTS = 50


class UnreadList(msgspec.Struct, frozen=True, kw_only=True):
    """A list with jobs that no worker reads."""

    #: The name of the list, with control characters escaped.
    name: str
    messages: int
    #: The queue that was probably meant; None if none is similar.
    nearest: str | None = None

    def __str__(self) -> str:
        meant = f"; did you mean {self.nearest}?" if self.nearest else "; a job goes to the queue predict.MODEL"
        return f"no worker reads the list {self.name}, with {plural(self.messages, 'message')}{meant}"


#: KEYS: a list. ARGV: texts that only the message of a job of protocol 2 has; an empty text; texts that the body
#: of protocol 1 has, in base64. Returns 1 if the newest or the oldest message is a job. Linear in their bytes.
_HOLDS_JOB = Script(
    "find_job_in_list",
    """
for _, index in ipairs({0, -1}) do
  local message = redis.pcall('LINDEX', KEYS[1], index)
  if type(message) == 'string' then
    local in_body = false
    for _, text in ipairs(ARGV) do
      if text == '' then
        if string.find(message, '"task"', 1, true) then break end
        in_body = true
      elseif string.find(message, text, 1, true) then return 1 end
    end
  end
end
return 0
""",
    flag="no-writes",
)


def _base64_forms(text: str) -> list[str]:
    """Return the base64 of a text inside a longer one: a form for each position in a group of three bytes."""
    forms = []
    for position in range(3):
        encoded = base64.b64encode(b"\0" * position + text.encode()).decode()
        # The characters that bytes before or behind the text change too are left out.
        forms.append(
            encoded[(0, 2, 3)[position] : len(encoded) - (0, 3, 2)[(position + len(text)) % 3]].rstrip("=")
        )
    return forms


_TASKS = (TASK, BULK_TASK)
_TEXTS = [
    *(f'"task":{space}"{task}"' for task in _TASKS for space in ("", " ")),
    "",
    *(form for task in _TASKS for form in _base64_forms(task)),
]


def find_unread_lists(keys: Keys) -> Operation[list[UnreadList] | None]:
    """Find the lists with jobs that no worker reads, most messages first; None if this user may not SCAN."""
    models = yield from list_models(keys)
    read = {
        name
        for queue in queues_of(models)
        for name in (*keys.lists(queue), *(name for name, _ in keys.foreign_lists(queue)))
    }
    try:
        names = yield from _scan_lists(keys)
    except NoPermissionError:
        return None
    unread = []
    for name in names - {name.encode() for name in read}:
        try:
            if (yield from _holds_jobs(keys, name)):
                unread.append(_describe(keys, name, models, int((yield Command(("LLEN", name))))))
        except NoPermissionError:  # another application's list
            continue
    return sorted(unread, key=lambda entry: (-entry.messages, entry.name))[:_MAX_LISTS]


def _scan_lists(keys: Keys) -> Operation[set[bytes]]:
    """Return the names of the lists of this installation, without those of Headrace itself."""
    prefix, own = keys.prefix.encode(), f"{keys.prefix}headrace:".encode()
    pattern = re.sub(r"([*?\[\]\\])", r"\\\1", keys.prefix) + "*"
    names: set[bytes] = set()
    cursor: int | bytes = 0
    for _ in range(_MAX_PAGES):
        cursor, page = yield Command(("SCAN", cursor, "MATCH", pattern, "COUNT", _PAGE_KEYS, "TYPE", "list"))
        names.update(name for name in page if name.startswith(prefix) and not name.startswith(own))
        if not int(cursor):
            break
    return names


def _holds_jobs(keys: Keys, name: bytes) -> Operation[bool]:
    """Decide whether a list holds jobs: by its name, else by its newest and its oldest message."""
    if name.startswith(f"{keys.prefix}{queue_name('')}".encode()):
        return True
    try:
        text = name.decode()
    except UnicodeDecodeError:
        return False  # no Celery client writes such a name
    return bool((yield _HOLDS_JOB([text], _TEXTS)))


def _describe(keys: Keys, name: bytes, models: Iterable[str], messages: int) -> UnreadList:
    text = name[len(keys.prefix.encode()) :].decode(errors="replace")
    # Behind another separator than kombu's stands the priority.
    stem = re.sub(r"\W+\d+$", "", text)
    nearest = nearest_name(stem, queues_of(models), cutoff=0.75)
    return UnreadList(name=repr(keys.prefix + text)[1:-1], messages=messages, nearest=nearest)
