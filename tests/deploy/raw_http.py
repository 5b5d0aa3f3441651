"""Requests over TLS byte by byte, as no HTTP library would send them."""

from __future__ import annotations

import re
import socket
import ssl
import time
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple


class Exchange(NamedTuple):
    """The answer: all bytes, and True if the other side ended the connection."""

    received: bytes
    was_closed: bool

    @property
    def statuses(self) -> list[int]:
        """The statuses of all answers on the connection, in their order."""
        return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", self.received)]

    @property
    def body(self) -> bytes:
        """The body of the only answer, which came in chunks."""
        rest, body = self.received.partition(b"\r\n\r\n")[2], b""
        while rest:
            size, _, rest = rest.partition(b"\r\n")
            length = int(size, 16)
            body, rest = body + rest[:length], rest[length + 2 :]
            if not length:
                break
        return body


def exchange(
    port: int, ca: Path, pieces: Iterable[bytes], *, pause: float = 0.0, timeout: float = 60.0
) -> Exchange:
    """Send pieces with pauses between them, and read until the other side ends the connection.

    Sending stops early where the other side has ended it.
    """
    context = ssl.create_default_context(cafile=ca)
    received = b""
    with (
        socket.create_connection(("localhost", port), timeout=timeout) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as secured,
    ):
        try:
            for piece in pieces:
                secured.sendall(piece)
                time.sleep(pause)
        except OSError:
            pass  # it has ended the connection, perhaps with an answer before
        try:
            while data := secured.recv(65536):
                received += data
        except TimeoutError:
            return Exchange(received, was_closed=False)
        except OSError:
            pass
    return Exchange(received, was_closed=True)


def request(method: str, path: str, *headers: str, body: bytes = b"") -> bytes:
    """Return the bytes of a request with exactly these headers, and Host."""
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: localhost", *headers, "", ""]).encode() + body
