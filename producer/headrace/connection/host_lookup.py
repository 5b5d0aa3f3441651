"""The addresses of a host, looked up within the time of the current call.

The system's resolver takes no timeout. So a thread looks the name up, and the caller stops waiting in time.
Callers that ask for the same name at the same time share a thread: a resolver that hangs holds one for each name.
The threads are daemons: neither a process nor an event loop waits for them at its end.
"""

from __future__ import annotations

import os
import socket
import threading
from concurrent.futures import Future
from typing import Any

#: What `socket.getaddrinfo` returns for an address: family, type, protocol, canonical name, and the address.
HostAddress = tuple[Any, Any, int, str, Any]

_lock = threading.Lock()
#: The look-ups under way, by process and arguments: a thread does not survive a fork.
_under_way: dict[tuple[int, str, int, int], Future[list[HostAddress]]] = {}


def look_up(host: str, port: int, family: int = 0) -> Future[list[HostAddress]]:
    """Start to look a host up, and return the future of its addresses. The future may raise OSError."""
    if is_address(host):
        address: Future[list[HostAddress]] = Future()
        address.set_result(socket.getaddrinfo(host, port, family, socket.SOCK_STREAM))
        return address
    key = (os.getpid(), host, port, family)
    with _lock:
        lookup = _under_way.get(key)
        if lookup is None:
            lookup = _under_way[key] = Future()
            lookup.set_running_or_notify_cancel()  # a caller that is cancelled does not cancel it for others
            threading.Thread(target=_run, args=(key, lookup), name="headrace-lookup", daemon=True).start()
    return lookup


def is_address(host: str) -> bool:
    """Decide whether a host is an IPv4 or IPv6 address, which needs no look-up."""
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            socket.inet_pton(family, host.partition("%")[0])
        except (OSError, ValueError):
            continue
        return True
    return False


def _run(key: tuple[int, str, int, int], lookup: Future[list[HostAddress]]) -> None:
    _, host, port, family = key
    try:
        addresses = socket.getaddrinfo(host, port, family, socket.SOCK_STREAM)
    except Exception as error:  # noqa: BLE001  # raised where the future is awaited
        lookup.set_exception(error)
    else:
        lookup.set_result(addresses)
    finally:
        with _lock:
            del _under_way[key]
