"""Checks who can read the traffic to Redis and who can log in, from the address and the current user.

A server on a loopback address or a unix socket has no findings.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from urllib.parse import urlsplit

from headrace.connection.url import Address
from headrace.doctor.finding import Finding


def check_access(address: Address, user: str | None) -> Iterator[Finding]:
    """Yield the findings about TLS, password and user.

    `user` is the Redis user of this connection, None where the server does not report it.
    """
    if is_local(address):
        return
    if address.tls is None:
        yield Finding(
            severity="warning",
            subject="HEADRACE_REDIS_URL",
            actual=f"without TLS, to {address.location}",
            expected="rediss://",
            reason="anyone on the network path can read instances, predictions and the password",
            fix="give Redis a certificate (`tls-port`), and write rediss:// with ssl_ca_certs",
        )
    elif str(address.tls.get("ssl_cert_reqs", "required")).lower() in {"none", "0", "cert_none"}:
        yield Finding(
            severity="warning",
            subject="ssl_cert_reqs",
            actual="none",
            expected="required",
            reason="anyone on the network path can pose as Redis",
            fix="remove it from the URL, and name the certificate authority in ssl_ca_certs",
        )
    if not address.options.get("password"):
        yield Finding(
            severity="error",
            subject="requirepass",
            actual="not set",
            expected="users with passwords",
            reason="anyone who reaches Redis can read, change and delete jobs",
            fix="ACL SETUSER default off, and create the users of docs/reference/acl.md",
        )
    elif user == "default":
        yield Finding(
            severity="warning",
            subject="ACL",
            actual="the user `default`",
            expected="a separate user for each component",
            reason="an intruder in one service can empty Redis and change its configuration",
            fix="create the users of docs/reference/acl.md, and name one in the URL",
        )


def is_local(address: Address) -> bool:
    """Return whether the traffic to an address stays on this machine."""
    if hosts := address.sentinels or address.nodes:
        return all(is_loopback(host) for host, _ in hosts)
    url = urlsplit(address.url)
    return url.scheme == "unix" or is_loopback(url.hostname or "localhost")


def is_loopback(host: str) -> bool:
    """Return whether a host name or address is this machine's loopback interface."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
