"""The endpoints that may be notified: names in the operator's TOML file, each with its URL and secrets.

    [orders]
    url = "https://orders.example/hooks/headrace"
    secrets = ["whsec_..."]                  # the first live one, and during a rotation a second
    events = ["success", "failure"]          # all four statuses if left out
    full = true                              # send predictions too, up to 256 KiB
    headers = { Authorization = "Bearer ..." }
    allow_http = true                        # permit http:// to another machine

A request names an endpoint, never a URL: so nobody but the operator decides where this machine connects to.
"""

from __future__ import annotations

import ipaddress
import logging
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import msgspec

from headrace.errors import SettingError
from headrace.text import did_you_mean
from headrace.wire.names import is_short_name
from headrace.wire.notice import NOTICE_STATUSES, NoticeStatus
from headrace_gateway.notify.signature import decode_secret

log = logging.getLogger("headrace.notify")

#: Headers that the notifier sets itself.
_OWN_HEADERS = frozenset(("content-length", "content-type", "host", "transfer-encoding", "connection"))
_OWN_PREFIX = "webhook-"


class Endpoint(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An endpoint, as the file describes it."""

    url: str
    secrets: Annotated[tuple[str, ...], msgspec.Meta(min_length=1, max_length=4)]
    events: tuple[NoticeStatus, ...] = NOTICE_STATUSES
    #: Send the predictions of a success too, if they are not too long.
    full: bool = False
    headers: dict[str, str] = {}
    #: Permit http:// to a machine other than this one.
    allow_http: bool = False

    @property
    def keys(self) -> tuple[bytes, ...]:
        """The bytes of the secrets."""
        return tuple(map(decode_secret, self.secrets))


Endpoints = Mapping[str, Endpoint]


def parse_endpoints(text: str, source: str) -> dict[str, Endpoint]:
    """Return the endpoints in a TOML text. Raises SettingError, which names `source` and quotes no value."""
    try:
        text.encode()
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SettingError(f"{source} is not TOML: {_position(error)}") from None
    except UnicodeEncodeError:
        raise SettingError(f"{source} is no UTF-8") from None
    except RecursionError:
        raise SettingError(f"{source} is not TOML that can be read: its values are nested too deeply") from None
    endpoints: dict[str, Endpoint] = {}
    for name, table in tables.items():
        if not is_short_name(name):
            raise SettingError(
                f"{source}: the name of an endpoint is 1 to 32 letters, digits, '-' or '_', "
                "the first a letter or digit"
            )
        if not isinstance(table, dict):
            raise SettingError(f"{source}: {name} is no table; write [{name}] and its url and secrets below")
        endpoints[name] = _parse_endpoint(name, table, source)
    return endpoints


def _position(error: tomllib.TOMLDecodeError) -> str:
    """Return where the text is wrong: the message of the parser may quote a secret."""
    place_start = str(error).rfind("(at ")
    return str(error)[place_start:].strip("()") if place_start >= 0 else "it cannot be parsed"


def _parse_endpoint(name: str, table: dict[str, object], source: str) -> Endpoint:
    try:
        endpoint = msgspec.convert(table, Endpoint)
    except msgspec.ValidationError as error:
        hints = "".join(did_you_mean(field, Endpoint.__struct_fields__) for field in table if _is_unknown(field))
        raise SettingError(f"{source}: [{name}]: {_lower(str(error))}{hints}") from None
    for number, secret in enumerate(endpoint.secrets, start=1):
        try:
            decode_secret(secret)
        except ValueError as error:
            raise SettingError(
                f"{source}: [{name}]: secret {number} cannot be used: {error}; "
                "make one with `headrace notify secret`"
            ) from None
    for header, value in endpoint.headers.items():
        if header.lower() in _OWN_HEADERS or header.lower().startswith(_OWN_PREFIX):
            raise SettingError(f"{source}: [{name}]: the notifier sets the header {header} itself")
        if not header.isascii() or not value.isprintable():
            raise SettingError(f"{source}: [{name}]: a header has a line break or a character that HTTP forbids")
    _check_url(name, endpoint, source)
    return endpoint


def _is_unknown(field: str) -> bool:
    return field not in Endpoint.__struct_fields__


def _lower(text: str) -> str:
    return text[0].lower() + text[1:]


def _check_url(name: str, endpoint: Endpoint, source: str) -> None:
    try:
        url = urlsplit(endpoint.url)
        host, _ = url.hostname, url.port
    except ValueError:
        raise SettingError(f"{source}: [{name}]: the url cannot be parsed") from None
    if url.scheme not in {"http", "https"} or not host:
        raise SettingError(f"{source}: [{name}]: the url is https://HOST/PATH")
    if url.username is not None or url.password is not None:
        raise SettingError(
            f"{source}: [{name}]: the url has a user or a password; "
            'write headers = { Authorization = "..." }, which no log shows'
        )
    if url.scheme == "http" and not endpoint.allow_http and not is_loopback(host):
        raise SettingError(
            f"{source}: [{name}]: the url is http://, so anybody on the way can read it; use https://, "
            "or set allow_http = true for a network that you trust"
        )


def is_loopback(host: str) -> bool:
    """Return True if a host is this machine, by its address or as `localhost`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class EndpointFile:
    """The endpoints of an installation, read again when their file changes.

    `value` is the path of the file, or its text (HEADRACE_NOTIFY_FILE reads the text of the file once). Empty:
    there are no endpoints. Raises SettingError if the endpoints cannot be used. A change that cannot be used is
    logged, and the former endpoints stay.
    """

    def __init__(self, value: str) -> None:
        self._path = Path(value) if value and not _is_toml(value) else None
        self._version: tuple[int, ...] | None = None
        self._endpoints: dict[str, Endpoint] = {}
        if self._path is None:
            self._endpoints = parse_endpoints(value, "HEADRACE_NOTIFY")
        else:
            self._read(self._path)

    def current(self) -> Endpoints:
        """Return the endpoints. It costs a look at the file's time."""
        if self._path is not None:
            try:
                self._read(self._path)
            except SettingError as error:
                log.error("%s; the former endpoints stay in use", error)  # noqa: TRY400  # its text says it all
        return self._endpoints

    def _read(self, path: Path) -> None:
        try:
            status = path.stat()
            version = (status.st_mtime_ns, status.st_size, status.st_ino)
            if version == self._version:
                return
            text = path.read_text(encoding="utf-8")
        except OSError as error:
            if self._version == (0,):
                return
            self._version = (0,) if self._version is not None else None  # log it once
            raise SettingError(f"HEADRACE_NOTIFY names {path}, which cannot be read: {error.strerror}") from None
        except UnicodeDecodeError:
            self._version = version
            raise SettingError(f"HEADRACE_NOTIFY names {path}, which is no UTF-8") from None
        self._version = version  # first: a file that cannot be used is reported once
        self._endpoints = parse_endpoints(text, str(path))


def _is_toml(value: str) -> bool:
    return "\n" in value or "=" in value
