"""Options of sockets by which the kernel finds that a connection is half open.

A subscriber sends nothing, and would otherwise wait for ever after the machine of Redis or a network is gone. The
kernel gives up after 30 s; what then connects again may take longer to notice.
"""

from __future__ import annotations

import socket

#: Seconds without data before the first probe, seconds between two, and their number.
_IDLE_SECONDS, _INTERVAL_SECONDS, _PROBES = 15, 5, 3

#: The options for `setsockopt` at level IPPROTO_TCP, without those that this system does not have.
KEEPALIVE_OPTIONS: dict[int, int] = {
    getattr(socket, name): value
    for name, value in {
        "TCP_KEEPIDLE": _IDLE_SECONDS,
        "TCP_KEEPINTVL": _INTERVAL_SECONDS,
        "TCP_KEEPCNT": _PROBES,
        # The same for data that was sent and is not acknowledged, in milliseconds: probes would wait for it.
        "TCP_USER_TIMEOUT": 1000 * (_IDLE_SECONDS + _INTERVAL_SECONDS * _PROBES),
    }.items()
    if hasattr(socket, name)
}
