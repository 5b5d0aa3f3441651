"""Checks of a worker's Redis and model store: by `headrace doctor`, and by each worker when it starts."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from functools import partial

import redis

from headrace.catalog.aliases import PRODUCTION, decode_aliases, read_aliases
from headrace.connection.commands import execute, run
from headrace.connection.errors import missing_command, translate_error
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
    """Yield the findings for a worker with the settings of this environment, for `headrace doctor`."""
    settings = load_settings(WorkerSettings)
    yield from _check_tracking(client)
    yield from _check_store(settings)
    yield from _check_aliases(client, settings)


def _check_tracking(client: redis.Redis) -> Iterator[Finding]:
    try:
        with client.client() as connection:  # type: ignore[no-untyped-call]  # redis-py gives it no types
            connection.execute_command("CLIENT", "TRACKING", "OFF")
    except redis.ResponseError as error:
        if missing_command(error) is not None:
            return  # `headrace.doctor.commands` has a finding
        yield Finding(
            severity="warning",
            subject="CLIENT TRACKING",
            actual="not permitted to this user",
            expected="permitted",
            reason="an idle worker notices a job up to 0.25 s late",
            fix="if this is the worker's user: ACL SETUSER <user> +client|tracking +client|id",
        )


def _check_store(settings: WorkerSettings) -> Iterator[Finding]:
    store = Store.from_settings(settings)
    try:
        problem = "" if store.models() else "without a model"
    except (HeadraceError, OSError) as error:
        problem = str(error)
    if problem:
        yield Finding(
            severity="warning",
            subject="HEADRACE_MODELS",
            actual=f"{store.title}, {problem}",
            expected="a store with at least one model",
            reason="a worker with this setting serves no model",
            fix="add a model with `headrace models add`, or set HEADRACE_MODELS to another store",
        )


def _check_aliases(client: redis.Redis, settings: WorkerSettings) -> Iterator[Finding]:
    """Yield a finding for each alias whose version a worker could not load from this store."""
    store, keys = Store.from_settings(settings), Keys(settings.key_prefix)
    try:
        for model in store.models():
            aliases = decode_aliases(model, execute(client, read_aliases(keys, model))).by_name
            versions = {name: alias.version for name, alias in aliases.items()}
            if PRODUCTION not in versions:
                versions["newest"] = store.latest(model)
            for name, version in versions.items():
                if (problem := _manifest_problem(store, model, version)) is not None:
                    yield Finding(
                        severity="error",
                        subject=f"{model}@{name}",
                        actual=f"version {version}: {problem}",
                        expected=f"a complete version in {store.title}",
                        reason="no worker that starts with this store can serve it",
                        fix=f"see `headrace models verify`; then `headrace models rollback {model}`, "
                        "or add the model again",
                    )
    except (HeadraceError, OSError, redis.ResponseError):
        return  # an unreadable store has a finding of its own; an operator may not read all keys


def _manifest_problem(store: Store, model: str, version: str) -> str | None:
    try:
        store.read_manifest(model, version)
    except (HeadraceError, OSError) as error:
        return str(error)
    return None


class RedisCheck:
    """The check of Redis at the start of a worker, as HEADRACE_REDIS_CHECK sets it: run once, by `__call__`."""

    def __init__(self, settings: WorkerSettings) -> None:
        self._settings = settings
        self._is_due = settings.redis_check != "off"

    def __call__(self, client: redis.Redis) -> None:
        """Log the findings; if Redis does not answer, the next call checks it.

        Raises SettingError for a critical finding when HEADRACE_REDIS_CHECK is `refuse`.
        """
        if not self._is_due:
            return
        settings = self._settings
        try:
            server = run(partial(execute, client), read_server_info())
        except redis.RedisError as error:
            log.warning("Redis is not checked yet: %s", translate_error(error, settings))
            return
        self._is_due = False
        address = parse_address(settings.redis_url)
        findings = check_redis(
            server,
            prefix=settings.key_prefix,
            by_sentinel=bool(address.sentinels),
            in_cluster=bool(address.nodes),
        )
        critical = [finding for finding in findings if finding.severity == "critical"]
        if critical and settings.redis_check == "refuse":
            raise SettingError(
                f"{server.name} at {describe_server(settings)} loses jobs or cannot process them, and "
                f"HEADRACE_REDIS_CHECK is refuse: {'; '.join(map(str, critical))}"
            )
        for finding in findings:
            # The user of a worker may not read the configuration of Redis, as docs/reference/acl.md has it.
            level = logging.DEBUG if finding.severity == "unknown" else logging.WARNING
            log.log(level, "%s: %s", finding.severity, finding)
