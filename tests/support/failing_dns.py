"""A resolver that fails while a file exists: `celery worker --include tests.support.failing_dns`."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

#: The variable with the path of the file while which no name is found. `redis.example` is this machine.
UNKNOWN = "UNKNOWN_HOSTS"
_look_up = socket.getaddrinfo


def _fail_or_look_up(host: Any, *arguments: Any, **options: Any) -> Any:
    if host != "redis.example":
        return _look_up(host, *arguments, **options)
    if Path(os.environ[UNKNOWN]).exists():
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
    return _look_up("127.0.0.1", *arguments, **options)


if UNKNOWN in os.environ:
    socket.getaddrinfo = _fail_or_look_up
