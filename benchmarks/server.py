"""What the suite asks of Redis beside the peers: an empty start, its CPU time, its memory."""

from __future__ import annotations

import os
import time
from typing import Any

import redis


class Server:
    """The one Redis everything runs on."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.client = redis.Redis.from_url(url, socket_timeout=120)

    def about(self) -> dict[str, Any]:
        """Version, and how it keeps what it is given."""
        info = self._info("server")
        kept = {name: self._setting(name) for name in ("appendonly", "appendfsync", "save", "maxmemory-policy")}
        return {"version": info.get("valkey_version") or info["redis_version"], **kept}

    def _setting(self, name: str) -> str:
        return str(self.client.config_get(name).get(name, ""))  # type: ignore[union-attr]  # not asyncio

    def _info(self, section: str) -> dict[str, Any]:
        found: dict[str, Any] = self.client.info(section)  # type: ignore[assignment]  # not asyncio
        return found

    def sync(self, when: str) -> None:
        """When the append-only file reaches the disk: `always` (before a write is confirmed) or `everysec`."""
        self.client.config_set("appendfsync", when)

    def log(self, *, on: bool) -> None:
        """Whether there is an append-only file."""
        self.client.config_set("appendonly", "yes" if on else "no")
        self.settle()

    def empty(self) -> None:
        """Remove everything, and the log of it: each peer begins on the same server."""
        # The log is rewritten here and nowhere else: it would take a core from whoever's turn it is.
        self.client.config_set("auto-aof-rewrite-percentage", 0)
        self.client.flushall()
        self.settle()
        self.client.bgrewriteaof()
        self.settle()

    def settle(self) -> None:
        """Wait until no rewrite of the append-only file takes CPU, and all of it is on the disk."""
        deadline = time.monotonic() + 300
        while time.monotonic() < deadline:
            state = self._info("persistence")
            if not (state["aof_rewrite_in_progress"] or state.get("aof_rewrite_scheduled")):
                os.sync()
                return
            time.sleep(0.1)

    def cpu(self) -> float:
        """Seconds of CPU its main thread has taken."""
        info = self._info("cpu")
        part = "_main_thread" if "used_cpu_sys_main_thread" in info else ""
        return float(info[f"used_cpu_sys{part}"]) + float(info[f"used_cpu_user{part}"])

    def memory(self) -> int:
        """Bytes its data takes, without what clients and the log are sent."""
        info = self._info("memory")
        return (
            int(info["used_memory"]) - int(info.get("mem_clients_normal", 0)) - int(info.get("mem_aof_buffer", 0))
        )

    def close(self) -> None:
        """Let go of the connection."""
        self.client.close()
