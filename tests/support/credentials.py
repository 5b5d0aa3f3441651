"""What each Redis user may do, measured with ACL DRYRUN: every command of the server on every kind of key.

The table of docs/reference/acl.md is made from it: `python -m tests.support.credentials`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import redis

from headrace.wire.keys import Keys
from headrace_worker.local.embedded_redis import EmbeddedRedis
from tests.support.acl import PAGE, rules, users
from tests.support.functions import load_functions
from tests.support.redis_servers import find_server

KEYS = Keys()
QUEUE = "predict.churn"
#: The users of the page that can log in.
NAMES = ("producer", "gateway", "celery", "operator", "worker", "flower", "metrics", "notifier", "listener")

#: Every kind of key that Headrace or Celery uses, with examples.
FAMILIES: dict[str, tuple[str, ...]] = {
    "waiting jobs": (*KEYS.lists(QUEUE), *(name for name, _ in KEYS.foreign_lists(QUEUE))),
    "waiting jobs of bulk runs": KEYS.lists("bulk.churn"),
    "bulk runs": (KEYS.run("x"), KEYS.runs),
    "receipts of bulk runs": (KEYS.receipts("x"),),
    "jobs that run again": (KEYS.isolated(QUEUE), *KEYS.retried(QUEUE)),
    "delayed jobs": (KEYS.delayed(QUEUE),),
    "jobs under lease": (KEYS.lease("me/1"), KEYS.grace("me/1")),
    "leases": (KEYS.leases,),
    "records of jobs": (KEYS.job("x"),),
    "outcomes": (KEYS.result("x"),),
    "what follows jobs": (KEYS.follow_ups,),
    "notices": (KEYS.notices, KEYS.notices_due, KEYS.notices_open),
    "ended jobs for listeners": (KEYS.listen_open, KEYS.listen_due),
    "last errors of endpoints": (KEYS.endpoints,),
    "parts of chords": ("celery-taskset-meta-x",),
    "requests to cancel": (KEYS.cancelled, KEYS.cancel_requests),
    "dead letters": (
        KEYS.dead,
        KEYS.dead_times,
        *(KEYS.dead_share(QUEUE, malformed=each) for each in (True, False)),
    ),
    "messages of dead letters": (KEYS.dead_messages,),
    "counts of dead letters": (KEYS.dead_dropped, KEYS.dead_trimmed),
    "contracts and models": (KEYS.contracts("churn"), KEYS.models),
    "aliases": (KEYS.aliases("churn"),),
    "history of aliases": (KEYS.alias_history("churn"),),
    "pauses": (KEYS.paused,),
    "callers and their API keys": (KEYS.callers,),
    "rates of callers": (KEYS.rate("shop"),),
    "count of changes": (KEYS.changes,),
    "reports of workers": (KEYS.loaded("churn"), KEYS.refused("churn"), KEYS.oldest),
    "election of keepers": (KEYS.workers, KEYS.keeper([QUEUE]), KEYS.watch([QUEUE]), KEYS.tokens(QUEUE)),
    "canary and shadow": (KEYS.version_stats("churn", "1"),),
    "counts of values": (KEYS.drift("churn", "1", 1),),
    "prediction log": (KEYS.prediction_log,),
    "remote control and events": ("x.celery.pidbox", "celeryev.x", "_kombu.binding.celeryev"),
    "other applications": ("another-application", "celery", "predictions"),
}

#: The channels, with an example.
CHANNELS: dict[str, str] = {
    "announced outcomes": KEYS.result("x"),
    "reply channels": KEYS.reply_channel("x"),
    "channels of listeners": KEYS.listen_channel("x"),
    "remote control": "/0.celery.pidbox",
    "events": "/0.celeryev/worker.heartbeat",
    "channels of other applications": "another-application",
}

#: The meaning of each command that a user of the page may run on a key.
VERBS: dict[str, str] = {
    command: verb
    for verb, commands in {
        "count": "exists hexists hlen llen scard sismember zcard zcount zlexcount zscore",
        "read": "get getrange hget hgetall hkeys hmget lindex lrange mget smembers zrange zrangebylex "
        "zrangebyscore zrevrange",
        "add": "hsetnx lpush rpush sadd xadd zadd",
        "change": "bitfield hincrby hincrbyfloat hset incrby persist set",
        "take": "blmove blpop brpop rpop sort",
        "delete": "del expire hdel ltrim pexpire srem zrem zremrangebyscore",
    }.items()
    for command in commands.split()
}
ORDER = ("count", "read", "add", "change", "take", "delete")
#: Commands with keys that run a function: each command inside it is checked for the user again.
CALLS = {"fcall"}

#: Commands whose keys are not at a fixed position: what to write before and after a key.
_SHAPES: dict[str, tuple[list[str], list[str]]] = {
    "xread": (["STREAMS"], ["0"]),
    "xreadgroup": (["GROUP", "g", "c", "STREAMS"], ["0"]),
    "sort": ([], []),
    "sort_ro": ([], []),
    "migrate": (["127.0.0.1", "1"], ["0", "1"]),
    "eval": (["return 1", "1"], []),
    "eval_ro": (["return 1", "1"], []),
    "evalsha": (["0" * 40, "1"], []),
    "evalsha_ro": (["0" * 40, "1"], []),
    "fcall": (["f", "1"], []),
    "fcall_ro": (["f", "1"], []),
    "zunion": (["1"], []),
    "zinter": (["1"], []),
    "zdiff": (["1"], []),
    "zintercard": (["1"], []),
    "sintercard": (["1"], []),
    "lmpop": (["1"], ["LEFT"]),
    "zmpop": (["1"], ["MIN"]),
    "blmpop": (["0", "1"], ["LEFT"]),
    "bzmpop": (["0", "1"], ["MIN"]),
    "blpop": ([], ["0"]),
    "brpop": ([], ["0"]),
    "memory|usage": ([], []),
    "pfdebug": (["ENCODING"], []),
}


class Command(NamedTuple):
    """The form of a command of Redis, as COMMAND tells it."""

    arity: int
    first_key: int
    last_key: int


def add_users(admin: redis.Redis) -> None:
    """Define the users of the page on a server."""
    for line in users():
        if line.split()[1] != "default":
            admin.execute_command("ACL", "SETUSER", *rules(line))


def commands_of(admin: redis.Redis) -> dict[str, Command]:
    """Return every command and subcommand of a server, by name (`config|get`)."""
    pool = admin.connection_pool
    connection = pool.get_connection()
    try:
        connection.send_command("COMMAND")  # redis-py would leave out subcommands
        reply = connection.read_response()
    finally:
        pool.release(connection)
    return dict(_each_command(reply))


def _each_command(reply: Iterable[Any]) -> Iterator[tuple[str, Command]]:
    for name, arity, _, first_key, last_key, *rest in reply:
        subcommands = rest[-1]
        if subcommands:
            yield from _each_command(subcommands)
        else:
            yield _text(name), Command(arity, first_key, last_key)


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def with_key(name: str, info: Command, key: str) -> list[str] | None:
    """Return a call of a command with all its keys set to `key`; None for a command without keys."""
    words = name.split("|")
    if name in _SHAPES:
        before, after = _SHAPES[name]
        arguments = [*words, *before, key, *after]
    elif info.first_key:
        arguments = [*words, *["1"] * (info.first_key - len(words)), key]
        while info.last_key not in {0, info.first_key} and len(arguments) <= info.last_key:
            arguments.append(key)
    else:
        return None
    missing = abs(info.arity) - len(arguments)
    return arguments + ["1"] * max(0, missing)


def may(admin: redis.Redis, user: str, *arguments: str) -> bool:
    """Decide whether a user may run a command."""
    reply = admin.execute_command("ACL", "DRYRUN", user, *arguments)
    return _text(reply) == "OK"


def commands_on(admin: redis.Redis, user: str, key: str, commands: Mapping[str, Command]) -> set[str]:
    """Return the commands that a user may run on a key."""
    calls = {name: with_key(name, info, key) for name, info in commands.items()}
    return {name for name, arguments in calls.items() if arguments and may(admin, user, *arguments)}


def verbs(names: Iterable[str]) -> list[str]:
    """Return the meanings of commands, in the order of the table. Raises KeyError for one without a meaning."""
    meanings = {VERBS[name] for name in names if name not in CALLS}
    return [verb for verb in ORDER if verb in meanings]


def measure(admin: redis.Redis) -> dict[str, dict[str, set[str]]]:
    """Return the commands that each user may run on each family of keys."""
    commands = commands_of(admin)
    return {
        user: {
            family: set().union(*(commands_on(admin, user, key, commands) for key in keys))
            for family, keys in FAMILIES.items()
        }
        for user in NAMES
    }


def measure_channels(admin: redis.Redis) -> dict[str, dict[str, list[str]]]:
    """Return what each user may do with each channel."""
    return {
        user: {
            name: [
                verb
                for verb, command in (("listen", "SUBSCRIBE"), ("send", "PUBLISH"))
                if may(admin, user, command, channel, *(["x"] if command == "PUBLISH" else []))
            ]
            for name, channel in CHANNELS.items()
        }
        for user in NAMES
    }


def keyless(admin: redis.Redis, user: str) -> set[str]:
    """Return the commands without keys and channels that a user may run."""
    permitted = set()
    for name, info in commands_of(admin).items():
        if with_key(name, info, "x") is None and name not in {
            "subscribe",
            "publish",
            "psubscribe",
            "ssubscribe",
            "spublish",
        }:
            arguments = [*name.split("|"), *["1"] * max(0, abs(info.arity) - len(name.split("|")))]
            if may(admin, user, *arguments):
                permitted.add(name)
    return permitted


def format_table(admin: redis.Redis) -> str:
    """Return the table of the page."""
    by_user, channels = measure(admin), measure_channels(admin)
    lines = [f"| | {' | '.join(f'`{name}`' for name in NAMES)} |", "| --- " * (len(NAMES) + 1) + "|"]
    for family in FAMILIES:
        cells = [_cell(verbs(by_user[name][family])) for name in NAMES]
        lines.append(f"| {family} | {' | '.join(cells)} |")
    for channel in CHANNELS:
        lines.append(f"| {channel} | {' | '.join(', '.join(channels[name][channel]) for name in NAMES)} |")
    cells = ["yes" if may(admin, name, "FCALL", "f", "0") else "" for name in NAMES]
    lines.append(f"| our functions | {' | '.join(cells)} |")
    cells = ["yes" if may(admin, name, "EVAL", "return 1", "0") else "" for name in NAMES]
    lines.append(f"| scripts of one's own | {' | '.join(cells)} |")
    return re.sub(r" +\|", " |", "\n".join(lines))


def _cell(meanings: list[str]) -> str:
    return "everything" if meanings == list(ORDER) else ", ".join(meanings)


def table_of_page() -> str:
    """Return the table that the page has."""
    (table,) = re.findall(r"<!-- credentials -->\n\n(.*?)\n\n<!-- -->", PAGE.read_text(), re.DOTALL)
    return str(table)


def main() -> None:
    """Write the table into the page."""
    with EmbeddedRedis(server=find_server("path")) as server, redis.Redis.from_url(server.url) as admin:
        load_functions(admin)
        add_users(admin)
        table = format_table(admin)
    text = PAGE.read_text()
    PAGE.write_text(text.replace(table_of_page(), table))


if __name__ == "__main__":
    main()
