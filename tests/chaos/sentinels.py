"""A replica that can lag behind its primary, and three Sentinels that promote it."""

from __future__ import annotations

import contextlib
import socket
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import redis

from headrace_worker.local.embedded_redis import EmbeddedRedis, find_redis
from tests.chaos.proxy import Proxy
from tests.chaos.workers import wait_until

_NAME = "chaos"
_COUNT = 3
#: Milliseconds without an answer after which a Sentinel considers a server down. With 1,000, a busy machine let
#: them fail over back to the killed primary at once.
_DOWN_AFTER_MS = 3000


class Sentinels:
    """The replica and the Sentinels of a running primary, as a context manager.

    `folder` is for their data. `server` is the program of all; None for the one that `find_redis` names. All use
    the primary's address at a proxy: a Sentinel corrects a replica that follows another address.
    """

    def __init__(self, primary: EmbeddedRedis, folder: Path, server: Path | None = None) -> None:
        self.primary, self._folder = primary, folder
        #: Every redis-server and valkey-server is a Sentinel too: no further package is needed.
        self._server = server or find_redis()
        self._stack = contextlib.ExitStack()

    @property
    def url(self) -> str:
        """The Redis URL with the Sentinels."""
        return ";".join(f"sentinel://127.0.0.1:{port}" for port in self._ports) + f"/0?master_name={_NAME}"

    def lag(self, seconds: float) -> None:
        """Let the replica lag behind by `seconds`, in each direction."""
        self._proxy.delay(seconds, marker=b"PSYNC")

    def lose(self) -> None:
        """Drop all data that is on its way to the replica."""
        self._proxy.cut()

    def promoted(self) -> bool:
        """Check that all Sentinels name the replica as the primary."""
        return all(_primary(port) == self.replica.port for port in self._ports)

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            self._proxy = stack.enter_context(Proxy(self.primary.port))
            # Redis 6.2 refuses host and port in one argument.
            options = ["--replicaof", "127.0.0.1", str(self._proxy.port), "--auto-aof-rewrite-percentage", "0"]
            options += ["--dir", str(self._folder)]
            self.replica = stack.enter_context(EmbeddedRedis(*options, server=self._server))
            self.client = stack.enter_context(redis.Redis.from_url(self.replica.url, client_name="chaos"))
            wait_until(self._is_synced, 20, "a synced replica")
            self._ports = [self._start(stack, number) for number in range(_COUNT)]
            try:
                wait_until(lambda: all(map(_knows_all, self._ports)), 30, "Sentinels that know each other")
            except TimeoutError as error:
                error.add_note(self._describe_failure())
                raise
            self._stack = stack.pop_all()
        return self

    def _is_synced(self) -> bool:
        state: dict[str, Any] = self.client.info("replication")  # type: ignore[assignment]  # not asyncio
        return bool(state.get("master_link_status") == "up")

    def _describe_failure(self) -> str:
        """Return the last lines of the Sentinels' logs, and what to install instead of this server."""
        logs = [log.read_text(errors="replace")[-500:] for log in sorted(self._folder.glob("sentinel-*/*.log"))]
        hint = f"{self._server} --sentinel did not watch its primary; on Debian: apt-get install redis-server"
        return "\n".join([hint, *(logs or ["no Sentinel wrote a log"])])

    def _start(self, stack: contextlib.ExitStack, number: int) -> int:
        port = _free_port()
        folder = self._folder / f"sentinel-{number}"
        folder.mkdir()
        # Each Sentinel has its own file, because it writes its state into it.
        (folder / "sentinel.conf").write_text(
            f"port {port}\nbind 127.0.0.1\ndir {folder}\nlogfile {folder}/sentinel.log\n"
            f"sentinel monitor {_NAME} 127.0.0.1 {self._proxy.port} 2\n"
            f"sentinel down-after-milliseconds {_NAME} {_DOWN_AFTER_MS}\nsentinel failover-timeout {_NAME} 3000\n"
        )
        process = subprocess.Popen(
            [str(self._server), str(folder / "sentinel.conf"), "--sentinel"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        stack.callback(process.wait)
        stack.callback(process.kill)
        return port

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.close()


def _primary(port: int) -> int:
    with redis.Redis(port=port) as client:
        return int(client.sentinel_master(_NAME)["port"])


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _knows_all(port: int) -> bool:
    try:
        with redis.Redis(port=port) as client:
            state = client.sentinel_master(_NAME)
    except redis.RedisError:
        return False
    return bool(state["num-slaves"] == 1 and state["num-other-sentinels"] == _COUNT - 1)
