"""Confine a process: it writes only below the folder for temporary files, and talks only to this machine.

A mutated argument may be a path or an address, and a mutated file may run code. An audit hook refuses what they
must not do with the error that a system without the right gives. It cannot be removed: for child processes only.
"""

from __future__ import annotations

import errno
import os
import socket
import sys
import tempfile
from typing import Any

#: What the process tried to do, by the name of the audit event.
refused: list[str] = []

_PATHS = frozenset(
    (
        "os.mkdir",
        "os.remove",
        "os.rename",
        "os.rmdir",
        "os.link",
        "os.symlink",
        "os.truncate",
        "os.chmod",
        "os.chown",
    )
)
_PROGRAMS = frozenset(("os.system", "os.exec", "os.posix_spawn", "os.spawn", "subprocess.Popen"))
_LOCAL_HOSTS = frozenset(("localhost", "127.0.0.1", "::1", ""))
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


def confine() -> None:
    """Confine this process until it ends, and those that it forks."""
    folders = tuple(os.path.realpath(folder) + os.sep for folder in (tempfile.gettempdir(), "/dev"))

    def is_inside(path: Any) -> bool:
        if isinstance(path, int) or path is None:
            return True
        return os.path.realpath(os.fsdecode(path)).startswith(folders)

    def refuse(event: str, error: OSError) -> None:
        refused.append(event)
        raise error

    def audit(event: str, args: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = args
            if (flags or 0) & _WRITING and not is_inside(path):
                refuse(event, PermissionError(errno.EACCES, os.strerror(errno.EACCES), path))
        elif event in _PATHS:
            if not is_inside(args[0]):
                refuse(event, PermissionError(errno.EACCES, os.strerror(errno.EACCES), args[0]))
        elif event in _PROGRAMS or event == "socket.bind":
            refuse(event, PermissionError(errno.EACCES, os.strerror(errno.EACCES)))
        elif event == "socket.getaddrinfo":
            if _decode(args[0]) not in _LOCAL_HOSTS:
                refuse(event, socket.gaierror(socket.EAI_NONAME, "Name or service not known"))
        elif event == "socket.connect" and isinstance(args[1], tuple) and args[1][0] not in _LOCAL_HOSTS:
            refuse(event, ConnectionRefusedError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED)))

    sys.addaudithook(audit)


def _decode(host: Any) -> str:
    return host.decode(errors="replace") if isinstance(host, bytes) else host or ""
