"""Who else can read what goes to Redis, and come in: a pure function of the address and of who we are there.

On the machine itself, over a loopback address or a unix socket, there is nothing to find.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from urllib.parse import urlsplit

from headrace.connection.url import Address
from headrace.doctor.redis import Finding


def access(address: Address, user: str | None) -> Iterator[Finding]:
    """What stands against keeping jobs to oneself. `user` is who Redis says we are, None where it does not."""
    if is_local(address):
        return
    if address.tls is None:
        yield Finding(
            level="weakens",
            directive="HEADRACE_REDIS_URL",
            actual=f"without TLS, to {address.where}",
            expected="rediss://",
            why="whoever is on the way reads instances, predictions and the password",
            fix="give Redis a certificate (`tls-port`), and write rediss:// with ssl_ca_certs",
        )
    elif str(address.tls.get("ssl_cert_reqs", "required")).lower() in {"none", "0", "cert_none"}:
        yield Finding(
            level="weakens",
            directive="ssl_cert_reqs",
            actual="none",
            expected="required",
            why="whoever is on the way can pass for Redis",
            fix="leave it out of the URL, and name the authority in ssl_ca_certs",
        )
    options = address.options
    if not options.get("password"):
        yield Finding(
            level="breaks",
            directive="requirepass",
            actual="no password asked for",
            expected="users with passwords",
            why="whoever reaches Redis reads, changes and deletes jobs",
            fix="ACL SETUSER default off, and the users of docs/reference/acl.md",
        )
    elif user == "default":
        yield Finding(
            level="weakens",
            directive="ACL",
            actual="the user `default`",
            expected="a user of its own for each part",
            why="a service that is broken into can empty Redis and change its configuration",
            fix="make the users of docs/reference/acl.md, and name one in the URL",
        )


def is_local(address: Address) -> bool:
    """Whether nothing leaves this machine."""
    if address.sentinels:
        return all(is_loopback(host) for host, _ in address.sentinels)
    parts = urlsplit(address.url)
    return parts.scheme == "unix" or is_loopback(parts.hostname or "localhost")


def is_loopback(host: str) -> bool:
    """Whether a host is this machine, by its name or address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
