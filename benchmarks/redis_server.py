"""The Redis server of the suite: reset to an empty state, its CPU time, its memory."""

from __future__ import annotations

import os
import time
from typing import Any

import redis


class RedisServer:
    """The one Redis server that every measurement uses."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.client = redis.Redis.from_url(url, socket_timeout=120)

    @property
    def title(self) -> str:
        """The name and version of the server."""
        info = self._info("server")
        valkey = info.get("valkey_version")
        return f"Valkey {valkey}" if valkey else f"Redis {info['redis_version']}"

    def about(self) -> dict[str, Any]:
        """Return the server's version and its persistence settings."""
        info = self._info("server")
        names = ("appendonly", "appendfsync", "save", "maxmemory-policy")
        settings = {name: self._setting(name) for name in names}
        return {"version": info.get("valkey_version") or info["redis_version"], **settings}

    def _setting(self, name: str) -> str:
        return str(self.client.config_get(name).get(name, ""))  # type: ignore[union-attr]  # not asyncio

    def _info(self, section: str) -> dict[str, Any]:
        info: dict[str, Any] = self.client.info(section)  # type: ignore[assignment]  # not asyncio
        return info

    def set_fsync(self, policy: str) -> None:
        """Set `appendfsync`: `always` writes to disk before a command is confirmed, `everysec` once a second."""
        self.client.config_set("appendfsync", policy)

    def set_append_only(self, *, enabled: bool) -> None:
        """Turn the append-only file on or off."""
        self.client.config_set("appendonly", "yes" if enabled else "no")
        self.wait_until_idle()

    def reset(self) -> None:
        """Remove all data and shrink the append-only file, so that each peer starts on the same server."""
        # A rewrite takes a core, so it happens here and never during a measurement.
        self.client.config_set("auto-aof-rewrite-percentage", 0)
        self.client.flushall()
        self.wait_until_idle()
        self.client.bgrewriteaof()
        self.wait_until_idle()

    def wait_until_idle(self) -> None:
        """Wait until no rewrite of the append-only file runs, and its data is on the disk."""
        deadline = time.monotonic() + 300
        while time.monotonic() < deadline:
            state = self._info("persistence")
            if not (state["aof_rewrite_in_progress"] or state.get("aof_rewrite_scheduled")):
                os.sync()
                return
            time.sleep(0.1)

    def cpu_seconds(self) -> float:
        """Return the CPU time of the server's main thread so far, in seconds."""
        info = self._info("cpu")
        suffix = "_main_thread" if "used_cpu_sys_main_thread" in info else ""
        return float(info[f"used_cpu_sys{suffix}"]) + float(info[f"used_cpu_user{suffix}"])

    def memory_bytes(self) -> int:
        """Return the memory of the data, without the buffers of clients and of the append-only file."""
        info = self._info("memory")
        buffers = int(info.get("mem_clients_normal", 0)) + int(info.get("mem_aof_buffer", 0))
        return int(info["used_memory"]) - buffers

    def close(self) -> None:
        """Close the connection."""
        self.client.close()
