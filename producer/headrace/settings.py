"""Settings out of the environment: typed, with a default for each, and an error that names the variable.

`HEADRACE_REDIS_URL=redis://...` sets `Settings.redis_url`. Every variable can be given as `NAME_FILE`
instead, the path of a file that holds the value: secrets stay out of the environment.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, TypeVar

import msgspec

from headrace.errors import SettingError

PREFIX = "HEADRACE_"

Seconds = Annotated[float, msgspec.Meta(gt=0)]
SettingsType = TypeVar("SettingsType", bound=msgspec.Struct)


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a producer can be told. The worker's settings begin with these too."""

    #: Where Redis is: see `headrace.connection.url`. Falls back to REDIS_URL.
    redis_url: str = "redis://127.0.0.1:6379/0"
    #: Put before every key; kombu's `global_keyprefix`. Ends in one of `: _ - .`, as Celery's results want it.
    key_prefix: Annotated[str, msgspec.Meta(pattern=r"^(.*[:_.-])?$")] = ""
    #: How long a connection may take to open, and a command to be answered.
    connect_timeout: Seconds = 5.0
    command_timeout: Seconds = 10.0
    #: How long an outcome can be read. Celery's own default is a day.
    result_ttl: Annotated[int, msgspec.Meta(gt=0)] = 86_400
    #: How long the record of a job that never ended is kept: the time an id is protected from a second use.
    job_ttl: Annotated[int, msgspec.Meta(gt=0)] = 7 * 86_400
    #: Jobs that may wait in one queue before `submit` raises QueueFull; 0 is no limit.
    queue_limit: Annotated[int, msgspec.Meta(ge=0)] = 1_000_000
    #: Bytes one job's instances may take as JSON.
    max_job_bytes: Annotated[int, msgspec.Meta(gt=0)] = 8 * 1024 * 1024
    #: Keys that jobs are signed with, `id:secret,id:secret`: the first signs, all verify.
    #: See `headrace.wire.signing`.
    job_keys: str = ""
    #: How long a producer trusts a contract it has read before it reads it again.
    contract_ttl: Seconds = 10.0


def load_settings(kind: type[SettingsType], environ: Mapping[str, str] | None = None) -> SettingsType:
    """The settings of a kind, from the environment. Raises SettingError naming the variable that is wrong."""
    environ = os.environ if environ is None else environ
    given: dict[str, str] = {}
    for field in msgspec.structs.fields(kind):
        variable = PREFIX + field.name.upper()
        value = _read(environ, variable)
        if value is None and field.name == "redis_url":
            variable = "REDIS_URL"
            value = _read(environ, variable)
        if value is None:
            continue
        given[field.name] = value
        try:
            msgspec.convert(value, field.type, strict=False)
        except msgspec.ValidationError as error:
            raise SettingError(f"{variable} cannot be used: {_reason(error)}") from None
    return msgspec.convert(given, kind, strict=False)


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
