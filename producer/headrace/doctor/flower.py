"""Checks that Flower answers and that it asks for a password."""

from __future__ import annotations

import http.client
from collections.abc import Iterator
from urllib.parse import urlsplit

from headrace.doctor.access import is_loopback
from headrace.doctor.finding import Finding
from headrace.errors import SettingError

#: Seconds to wait for an answer.
_TIMEOUT = 5.0


def check_flower(url: str) -> Iterator[Finding]:
    """Request Flower's page without credentials, and yield the findings. Raises SettingError for a wrong URL."""
    parsed = urlsplit(url)
    if parsed.scheme not in {"http", "https"} or not parsed.hostname:
        raise SettingError("Flower's URL is http:// or https:// with a host, such as http://127.0.0.1:5555")
    shown_url = f"{parsed.scheme}://{parsed.hostname}" + (f":{parsed.port}" if parsed.port else "")
    try:
        status = _get_status(parsed.scheme, parsed.hostname, parsed.port, parsed.path or "/")
    except (OSError, http.client.HTTPException) as error:
        yield Finding(
            severity="error",
            subject="Flower",
            actual=f"not reachable at {shown_url} ({type(error).__name__})",
            expected="reachable",
            reason="jobs and dead letters cannot be watched there",
            fix="start it with `headrace flower`, or read its log and the log of the proxy in front of it",
        )
        return
    is_on_this_machine = is_loopback(parsed.hostname)
    if parsed.scheme == "http" and not is_on_this_machine:
        yield Finding(
            severity="warning",
            subject="Flower",
            actual=f"without TLS, at {shown_url}",
            expected="https://",
            reason="anyone on the network path can read its password",
            fix="put it behind a proxy with TLS, as deploy/ does",
        )
    if status < http.HTTPStatus.MULTIPLE_CHOICES:
        yield Finding(
            severity="warning" if is_on_this_machine else "error",
            subject="Flower",
            actual=f"open to anyone who reaches {shown_url}",
            expected="protected by a password",
            reason="anyone who opens it can see jobs and workers, and may be able to stop workers",
            fix="give it a password: see `headrace flower --help`",
        )
    elif status >= http.HTTPStatus.INTERNAL_SERVER_ERROR:
        yield Finding(
            severity="error",
            subject="Flower",
            actual=f"answering {status} at {shown_url}",
            expected="a page, or a request for a password",
            reason="jobs and dead letters cannot be watched there",
            fix="read its log and the log of the proxy in front of it",
        )


def _get_status(scheme: str, host: str, port: int | None, path: str) -> int:
    connection_type = http.client.HTTPSConnection if scheme == "https" else http.client.HTTPConnection
    connection = connection_type(host, port, timeout=_TIMEOUT)
    try:
        connection.request("GET", path)  # redirects, such as to a login page, are not followed
        return connection.getresponse().status
    finally:
        connection.close()
