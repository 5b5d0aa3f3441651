"""The embedded Redis is durable, listens on loopback, and is removed when it stops."""

from __future__ import annotations

import socket
import threading
import time
from pathlib import Path

import pytest
import redis

from headrace.errors import HeadraceError
from headrace_worker.local.embedded_redis import EmbeddedRedis, find_redis


def test_redis_on_the_path_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    executable = tmp_path / "redis-server"
    executable.touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_redis() == executable
    executable.rename(tmp_path / "valkey-server")
    assert find_redis() == tmp_path / "valkey-server"


def test_without_redis_on_path_the_server_of_a_wheel_is_used(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", "/nowhere")
    executable = find_redis()
    with EmbeddedRedis(server=executable) as server, redis.Redis.from_url(server.url) as client:
        assert client.ping()


def test_without_any_redis_the_error_names_what_to_install(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", "/nowhere")

    def missing(package: str) -> Path:
        raise ModuleNotFoundError(package)

    monkeypatch.setattr("headrace_worker.local.embedded_redis.resources.files", missing)
    with pytest.raises(HeadraceError, match=r"install either, or `pip install 'headrace-worker\[embedded\]'`"):
        find_redis()


def test_it_listens_on_loopback_only_and_writes_to_disk_before_it_confirms():
    with EmbeddedRedis() as server, redis.Redis.from_url(server.url, decode_responses=True) as client:
        assert client.config_get("bind") == {"bind": "127.0.0.1"}
        assert client.config_get("appendfsync") == {"appendfsync": "always"}
        assert client.config_get("appendonly") == {"appendonly": "yes"}
        assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}


def test_data_survives_a_crash_and_is_removed_at_the_end():
    with EmbeddedRedis() as server, redis.Redis.from_url(server.url) as client:
        folder = Path(client.config_get("dir")["dir"])
        client.set("a", "1")
        server.kill()
        server.start()
        assert client.get("a") == b"1"
        assert folder.is_dir()
    assert not folder.exists()


def test_it_keeps_running_after_the_end_of_the_thread_that_started_it():
    server = EmbeddedRedis()
    thread = threading.Thread(target=server.start)
    thread.start()
    thread.join()
    try:
        time.sleep(0.3)  # long enough for a signal at the end of the thread to arrive
        with redis.Redis.from_url(server.url) as client:
            assert client.ping()
    finally:
        server.stop()


def test_another_redis_on_the_port_is_an_error(redis_url: str, redis_server: EmbeddedRedis):
    with pytest.raises(HeadraceError, match=f"did not start on port {redis_server.port}: .*Failed listening"):
        EmbeddedRedis(port=redis_server.port).start()
    with redis.Redis.from_url(redis_url) as client:
        assert client.ping()


def test_a_port_in_use_is_an_error_and_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(HeadraceError, match=f"did not start on port {port}: .*Failed listening on port"):
            EmbeddedRedis(port=port).start()
    assert list(tmp_path.iterdir()) == []


def test_an_executable_that_is_not_redis_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(HeadraceError, match=r"/bin/false did not start on port .*: its log is empty"):
        EmbeddedRedis(server=Path("/bin/false")).start()
    assert list(tmp_path.iterdir()) == []
