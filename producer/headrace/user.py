"""The person behind this process, for histories and audit lines."""

from __future__ import annotations

import getpass
import socket


def name_user_and_host() -> str:
    """Return `user@host` of this process, at most 128 characters."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # the user of a container often has no name
        user = "unknown"
    return f"{user}@{socket.gethostname()}"[:128]
