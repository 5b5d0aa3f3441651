"""A local HTTP endpoint that stores the body of every POST."""

from __future__ import annotations

import gzip
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import brotli

#: Sentry's SDK packs with brotli where it is installed.
_UNPACK = {"gzip": gzip.decompress, "br": brotli.decompress, None: bytes}


class Endpoint:
    """An endpoint that stores bodies while it runs. After `stop`, `start` runs it again on the same port."""

    #: The body of its replies.
    reply = b""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.port = 0
        self.start()

    def start(self) -> None:
        bodies, reply = self.bodies, self.reply

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                bodies.append(_UNPACK[self.headers["Content-Encoding"]](body))
                self.send_response(200)
                self.end_headers()
                self.wfile.write(reply)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self.port = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
