"""What a worker needs of its Redis and its store: looked at when it starts, and by `headrace doctor`."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from functools import partial

import redis

from headrace.catalog.aliases import PRODUCTION, decode_aliases, read_aliases
from headrace.connection.commands import execute, run
from headrace.connection.errors import translate_error
from headrace.connection.server_info import read_server_info
from headrace.connection.url import describe_server, parse_address
from headrace.doctor.finding import Finding
from headrace.doctor.redis import check_redis
from headrace.errors import HeadraceError, SettingError
from headrace.settings import load_settings
from headrace.wire.keys import Keys
from headrace_worker.settings import WorkerSettings
from headrace_worker.store.store import Store

log = logging.getLogger("headrace.redis")


def examine(client: redis.Redis) -> Iterator[Finding]:
    """What stands against the promises on the worker's side, with the settings of this shell."""
    settings = load_settings(WorkerSettings)
    yield from _wakeups(client)
    yield from _store(settings)
    yield from _aliases(client, settings)


def _wakeups(client: redis.Redis) -> Iterator[Finding]:
    try:
        with client.client() as connection:  # type: ignore[no-untyped-call]  # redis-py gives it no types
            connection.execute_command("CLIENT", "TRACKING", "OFF")
    except redis.ResponseError:
        yield Finding(
            severity="warning",
            subject="CLIENT TRACKING",
            actual="not permitted to this user",
            expected="permitted",
            reason="an idle worker hears of a job up to 0.25 s late",
            fix="if it is the worker's user: ACL SETUSER <user> +client|tracking +client|id",
        )


def _store(settings: WorkerSettings) -> Iterator[Finding]:
    store = Store.from_settings(settings)
    try:
        models = store.models()
    except (HeadraceError, OSError) as error:
        problem = str(error)
    else:
        problem = "" if models else "without a model"
    if problem:
        yield Finding(
            severity="warning",
            subject="HEADRACE_MODELS",
            actual=f"{store.title}, {problem}",
            expected="a store that holds a model",
            reason="a worker started here serves nothing",
            fix="headrace models add, or set HEADRACE_MODELS to the store",
        )


def _aliases(client: redis.Redis, settings: WorkerSettings) -> Iterator[Finding]:
    """Versions that aliases name, and that no worker could load out of this store."""
    store, keys = Store.from_settings(settings), Keys(settings.key_prefix)
    try:
        for model in store.models():
            known = decode_aliases(model, execute(client, read_aliases(keys, model)))
            named = {alias: points.version for alias, points in known.by_name.items()}
            if PRODUCTION not in named:
                named["newest"] = store.latest(model)
            for alias, version in named.items():
                if (problem := _problem(store, model, version)) is not None:
                    yield Finding(
                        severity="error",
                        subject=f"{model}@{alias}",
                        actual=f"version {version}: {problem}",
                        expected=f"a version that {store.title} holds whole",
                        reason="no worker started with this store can serve it",
                        fix=f"headrace models verify says more; headrace models rollback {model}, or add it again",
                    )
    except (HeadraceError, OSError, redis.ResponseError):
        return  # `_store` has told, or this user may not


def _problem(store: Store, model: str, version: str) -> str | None:
    try:
        store.read_manifest(model, version)
    except (HeadraceError, OSError) as error:
        return str(error)
    return None


class RedisCheck:
    """The look a worker takes at its Redis when it starts, as HEADRACE_REDIS_CHECK wants it, once."""

    def __init__(self, settings: WorkerSettings) -> None:
        self._settings = settings
        self._due = settings.redis_check != "off"

    def __call__(self, client: redis.Redis) -> None:
        """Warn of what breaks or weakens a promise. A Redis that is away is looked at by the next call.

        Raises SettingError if jobs would be lost or could not be taken, and that is to be refused.
        """
        if not self._due:
            return
        settings = self._settings
        try:
            facts = run(partial(execute, client), read_server_info())
        except redis.RedisError as error:
            log.warning("not checked yet: %s", translate_error(error, settings))
            return
        self._due = False
        by_sentinel = bool(parse_address(settings.redis_url).sentinels)
        found = check_redis(facts, prefix=settings.key_prefix, by_sentinel=by_sentinel)
        critical = [one for one in found if one.severity == "critical"]
        if critical and settings.redis_check == "refuse":
            raise SettingError(
                f"{facts.name} at {describe_server(settings)} loses jobs or cannot take them, and "
                f"HEADRACE_REDIS_CHECK is refuse: {'; '.join(map(str, critical))}"
            )
        for one in found:
            if one.severity == "unknown":
                log.info("%s: %s", one.severity, one)
            else:
                log.warning("%s: %s", one.severity, one)
