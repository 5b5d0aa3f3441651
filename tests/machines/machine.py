"""Machines on one host: each is a network namespace with processes of its own, linked by pairs of veth.

    with Machine("worker") as worker, Machine("network") as network:
        link(network, worker, 1)            # 10.77.1.1 on the network, 10.77.1.2 on the worker
        worker.call(subprocess.Popen, [...])

A namespace has no name, and belongs to a thread of this process: it ends with the thread and the processes that it
started, however this process ends. A socket belongs to the namespace of the thread that makes it.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import ParamSpec, Self, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

_CLONE_NEWNET = 0x40000000


class NamespacesNotPermitted(Exception):
    """The reason why this user has no network namespaces."""


class Machine:
    """A network namespace, as a context manager. Raises NamespacesNotPermitted."""

    def __init__(self, name: str) -> None:
        self.name = name
        #: The id of a thread in the namespace.
        self.thread_id = 0
        self._executor = ThreadPoolExecutor(1, thread_name_prefix=name)

    def __enter__(self) -> Self:
        try:
            self._executor.submit(self._unshare).result()
            self.run_ip("link", "set", "lo", "up")
        except BaseException:
            self._executor.shutdown()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._executor.shutdown()

    def _unshare(self) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.unshare(_CLONE_NEWNET):
            reason = os.strerror(ctypes.get_errno())
            raise NamespacesNotPermitted(f"no network namespaces: {reason}; they need root, or CAP_SYS_ADMIN")
        self.thread_id = threading.get_native_id()

    def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a function on the machine: the sockets, threads and processes that it makes belong to it."""
        return self._executor.submit(function, *args, **kwargs).result()

    def run_ip(self, *arguments: str) -> None:
        """Run iproute2's `ip` on the machine. Raises NamespacesNotPermitted if it is refused or missing."""
        try:
            self.call(subprocess.run, ["ip", *arguments], check=True, capture_output=True, text=True, timeout=10)
        except FileNotFoundError:
            raise NamespacesNotPermitted("no `ip`; on Debian: apt-get install iproute2") from None
        except subprocess.CalledProcessError as error:
            raise NamespacesNotPermitted(f"ip {' '.join(arguments)}: {error.stderr.strip()}") from None


def link(first: Machine, second: Machine, number: int) -> tuple[str, str]:
    """Connect two machines by a network of their own; return the address of each on it."""
    addresses = f"10.77.{number}.1", f"10.77.{number}.2"
    name = f"link{number}"
    peer = ("peer", "name", name, "netns", str(second.thread_id))
    first.run_ip("link", "add", name, "type", "veth", *peer)
    for machine, address in zip((first, second), addresses, strict=True):
        machine.run_ip("address", "add", f"{address}/30", "dev", name)
        machine.run_ip("link", "set", name, "up")
    return addresses
