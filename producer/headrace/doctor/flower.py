"""Whether a Flower lives, and whether it is closed to those who have no business there."""

from __future__ import annotations

import http.client
from collections.abc import Iterator
from urllib.parse import urlsplit

from headrace.doctor.access import is_loopback
from headrace.doctor.redis import Finding
from headrace.errors import SettingError

#: Seconds it may take to answer.
_PATIENCE = 5.0


def flower(url: str) -> Iterator[Finding]:
    """What stands against the Flower at that URL, looked at as a stranger would. Raises SettingError."""
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise SettingError("Flower's URL is http:// or https://, with a host: http://127.0.0.1:5555")
    shown = f"{parts.scheme}://{parts.hostname}" + (f":{parts.port}" if parts.port else "")
    try:
        status = _status(parts.scheme, parts.hostname, parts.port, parts.path or "/")
    except (OSError, http.client.HTTPException) as error:
        yield Finding(
            level="breaks",
            directive="Flower",
            actual=f"not to be reached at {shown} ({type(error).__name__})",
            expected="an answer",
            why="nobody sees jobs and dead letters there",
            fix="headrace flower; or look at its log, and at what is in front of it",
        )
        return
    local = is_loopback(parts.hostname)
    if parts.scheme == "http" and not local:
        yield Finding(
            level="weakens",
            directive="Flower",
            actual=f"without TLS, {shown}",
            expected="https://",
            why="whoever is on the way reads its password",
            fix="put it behind a proxy that speaks TLS, as deploy/ does",
        )
    if status < http.HTTPStatus.MULTIPLE_CHOICES:
        yield Finding(
            level="weakens" if local else "breaks",
            directive="Flower",
            actual=f"open to whoever reaches {shown}",
            expected="a password",
            why="whoever opens it sees jobs and workers, and may stop these",
            fix="give it a password: see `headrace flower --help`",
        )
    elif status >= http.HTTPStatus.INTERNAL_SERVER_ERROR:
        yield Finding(
            level="breaks",
            directive="Flower",
            actual=f"answering {status} at {shown}",
            expected="a page, or a request for a password",
            why="nobody sees jobs and dead letters there",
            fix="look at its log, and at that of what is in front of it",
        )


def _status(scheme: str, host: str, port: int | None, path: str) -> int:
    kind = http.client.HTTPSConnection if scheme == "https" else http.client.HTTPConnection
    connection = kind(host, port, timeout=_PATIENCE)
    try:
        connection.request("GET", path)  # a redirection, to a page that asks for a password, is not followed
        return connection.getresponse().status
    finally:
        connection.close()
