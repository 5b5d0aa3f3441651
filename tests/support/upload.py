"""A request whose body is sent by hand, over a socket."""

from __future__ import annotations

import select
import socket

from tests.support.gateway import RunningGateway


class Upload:
    """A request whose body is sent by hand, over a socket: `send` a chunk, `read` what is there of the answer."""

    def __init__(self, gateway: RunningGateway, *headers: str, path: str = "/v1/models/doubling:batch") -> None:
        self._socket = socket.create_connection(("127.0.0.1", int(gateway.url.rpartition(":")[2])), timeout=20)
        head = [f"POST {path} HTTP/1.1", "Host: gateway", "Transfer-Encoding: chunked", *headers, "", ""]
        self._socket.sendall("\r\n".join(head).encode())

    def send(self, chunk: bytes) -> None:
        """Send a chunk of the body; an empty one is its end."""
        self._socket.sendall(b"%x\r\n%b\r\n" % (len(chunk), chunk))

    def read_until(self, text: bytes) -> bytes:
        """Read the answer up to a text, which must come."""
        answer = b""
        while text not in answer:
            piece = self._socket.recv(65_536)
            assert piece, answer
            answer += piece
        return answer

    def expect_nothing(self, seconds: float = 0.5) -> None:
        """Check that nothing of an answer arrives for a moment."""
        ready, _, _ = select.select([self._socket], [], [], seconds)
        assert not ready

    def read_all(self) -> bytes:
        """Read until the server closes the connection."""
        answer = b""
        while piece := self._socket.recv(65_536):
            answer += piece
        return answer

    def __enter__(self) -> Upload:
        return self

    def __exit__(self, *error: object) -> None:
        self._socket.close()
