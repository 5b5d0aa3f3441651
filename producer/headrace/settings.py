"""Settings from the environment: each has a type and a default, and errors name the variable.

`HEADRACE_REDIS_URL=redis://...` sets `Settings.redis_url`. For every variable you can set `NAME_FILE` instead, the
path of a file with the value, so that secrets stay out of the environment.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, TypeVar

import msgspec

from headrace.errors import SettingError

PREFIX = "HEADRACE_"
#: What a line of an environment file may leave around a URL.
BLANKS_AND_QUOTES = " \t\r\n'\"\ufeff"
#: The key prefix on a Redis Cluster where none is set. Its hash tag, the braces, puts all keys into one slot.
CLUSTER_PREFIX = "{headrace}:"

Seconds = Annotated[float, msgspec.Meta(gt=0)]
SettingsType = TypeVar("SettingsType", bound=msgspec.Struct)


class _ImpliedPrefix(str):
    """The key prefix that a cluster address implies: it goes if the address is replaced by another."""

    __slots__ = ()


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The settings of a producer. A worker has them too."""

    #: The URL of Redis, see `headrace.connection.url`. Without it, REDIS_URL is used.
    redis_url: str = "redis://127.0.0.1:6379/0"
    #: Prefix of every key; kombu's `global_keyprefix`. It ends in one of `: _ - .`, as Celery requires.
    key_prefix: Annotated[str, msgspec.Meta(pattern=r"^(.*[:_.-])?$")] = ""
    #: Seconds for opening a connection, and for a command of a client with all its repetitions.
    connect_timeout: Seconds = 5.0
    command_timeout: Seconds = 10.0
    #: Seconds for which an outcome can be read. Celery's own default is a day.
    result_ttl: Annotated[int, msgspec.Meta(gt=0)] = 86_400
    #: Seconds, besides its delay, for which the record of an unfinished job protects its id from a second use.
    job_ttl: Annotated[int, msgspec.Meta(gt=0)] = 7 * 86_400
    #: Most jobs in a queue: waiting, delayed, or to run again; beyond it, `submit` raises QueueFull. 0 is
    #: no limit.
    queue_limit: Annotated[int, msgspec.Meta(ge=0)] = 1_000_000
    #: Most ended jobs of one name that listeners have not handled; beyond it, `submit` with this name raises
    #: QueueFull. 0 is no limit.
    listen_limit: Annotated[int, msgspec.Meta(ge=0)] = 1_000_000
    #: Most bytes of a job's instances as JSON, and most values in them (numbers, texts, nulls, lists, objects). A
    #: worker refuses a message beyond them before it decodes it.
    max_job_bytes: Annotated[int, msgspec.Meta(gt=0)] = 8 * 1024 * 1024
    max_job_values: Annotated[int, msgspec.Meta(gt=0)] = 1_000_000
    #: Keys that jobs are signed with, `id:secret,id:secret`. The first key signs, all keys verify.
    job_keys: str = ""
    #: Seconds for which a producer caches a contract.
    contract_ttl: Seconds = 10.0

    def __post_init__(self) -> None:
        """Set the key prefix of a cluster where none is set. msgspec calls this for copies too."""
        if not self.key_prefix and is_cluster_url(self.redis_url):
            msgspec.structs.force_setattr(self, "key_prefix", _ImpliedPrefix(CLUSTER_PREFIX))
        elif isinstance(self.key_prefix, _ImpliedPrefix) and not is_cluster_url(self.redis_url):
            msgspec.structs.force_setattr(self, "key_prefix", "")


def is_cluster_url(url: object) -> bool:
    """Decide whether a Redis URL is that of a cluster, as `headrace.connection.url` reads it."""
    return isinstance(url, str) and url.strip(BLANKS_AND_QUOTES).lower().startswith("cluster:")


def load_settings(kind: type[SettingsType], environ: Mapping[str, str] | None = None) -> SettingsType:
    """Load settings from the environment. `kind` is the class of the settings.

    Raises SettingError, which names the variable with an invalid value.
    """
    environ = os.environ if environ is None else environ
    values: dict[str, str] = {}
    for field in msgspec.structs.fields(kind):
        variable = PREFIX + field.name.upper()
        value = _read(environ, variable)
        if value is None and field.name == "redis_url":
            variable = "REDIS_URL"
            value = _read(environ, variable)
        if value is None:
            continue
        values[field.name] = value
        try:
            msgspec.convert(value, field.type, strict=False)
        except msgspec.ValidationError as error:
            raise SettingError(f"{variable} cannot be used: {_reason(error)}") from None
    return msgspec.convert(values, kind, strict=False)


def _read(environ: Mapping[str, str], variable: str) -> str | None:
    path = environ.get(f"{variable}_FILE")
    if path:
        try:
            return Path(path).read_text(encoding="utf-8").strip()
        except OSError as error:
            raise SettingError(f"{variable}_FILE names {path}, which cannot be read: {error.strerror}") from None
    return environ.get(variable) or None


def _reason(error: msgspec.ValidationError) -> str:
    text = str(error)
    return text[0].lower() + text[1:]
