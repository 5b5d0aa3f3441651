"""Servers that keep a client waiting: a stopped Redis, a server that trickles, a port that drops packets."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import redis


@contextmanager
def stopped(url: str, **options: Any) -> Iterator[None]:
    """Stop the process of a Redis for the time of the block: connections to it open, and it says nothing.

    `options` are those of redis-py for a connection to it.
    """
    with redis.Redis.from_url(url, **options) as client:
        pid = client.info("server")["process_id"]
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@contextmanager
def trickling_server() -> Iterator[int]:
    """Run a server that replies to anything with one endless reply, a byte at a time. Yields its port."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        stop = threading.Event()
        threads: list[threading.Thread] = []

        def trickle(client: socket.socket) -> None:
            with client, suppress(OSError):
                client.sendall(b"$100000000\r\n")
                while not stop.wait(0.1):
                    client.sendall(b"x")

        def accept() -> None:
            with suppress(OSError):
                while True:
                    client, _ = listening.accept()
                    threads.append(threading.Thread(target=trickle, args=(client,)))
                    threads[-1].start()

        accepting = threading.Thread(target=accept)
        accepting.start()
        try:
            yield listening.getsockname()[1]
        finally:
            stop.set()
            listening.shutdown(socket.SHUT_RDWR)
            accepting.join()
            for thread in threads:
                thread.join()


@contextmanager
def dropping_port(port: int = 0) -> Iterator[int]:
    """Yield a port that drops connection requests: the backlog of its listener is full. 0 is any free port."""
    with socket.socket() as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(("127.0.0.1", port))
        listening.listen(0)
        waiting = []
        try:
            for _ in range(4):
                client = socket.socket()
                client.setblocking(False)
                client.connect_ex(listening.getsockname())
                waiting.append(client)
            time.sleep(0.1)
            yield listening.getsockname()[1]
        finally:
            for client in waiting:
                client.close()
