"""Every operation on leases when Redis forgets scripts, is full, is a cluster, or restricts the user."""

from __future__ import annotations

import contextlib
import random
import socket
import threading
import time

import pytest
import redis

from headrace.wire.keys import Keys
from headrace_worker.local.embedded_redis import EmbeddedRedis
from headrace_worker.transport.leases import Leases
from tests.support.lease_operations import every_operation, push
from tests.support.redis_servers import find_server


def test_scripts_that_redis_no_longer_has_are_sent_again(db: redis.Redis, keys: Keys, leases: Leases) -> None:
    for _ in every_operation(db, keys, leases):
        db.script_flush()


def test_a_full_redis_can_be_drained_and_loses_nothing(db: redis.Redis, keys: Keys, leases: Leases) -> None:
    steps = every_operation(db, keys, leases)
    next(steps)
    db.set("ballast", b"x" * (8 << 20))
    db.config_set("maxmemory", "1mb")
    try:
        with pytest.raises(redis.exceptions.OutOfMemoryError):
            push(db, keys, b"one more")
        for _ in steps:
            pass
    finally:
        db.config_set("maxmemory", 0)


def test_every_key_a_script_touches_is_declared(db: redis.Redis, keys: Keys, leases: Leases) -> None:
    declared: set[str] = set()
    touched: list[tuple[str, str]] = []
    with db.monitor() as monitor:
        thread = threading.Thread(target=lambda: (list(every_operation(db, keys, leases)), db.echo("the end")))
        thread.start()
        for record in monitor.listen():
            words = record["command"].split(" ")
            if record["command"].startswith("ECHO"):
                break
            if words[0] in {"EVALSHA", "FCALL"} and record["client_type"] != "lua":
                declared = set(words[3 : 3 + int(words[2])])
            elif record["client_type"] == "lua" and words[0] != "TIME":
                touched.append((words[1], record["command"]))
                assert words[1] in declared, f"{record['command'][:80]} touches a key that is not declared"
        thread.join()
    assert len(touched) > 30


def test_a_user_with_only_the_keys_of_headrace_can_run_every_operation(
    db: redis.Redis, any_redis: EmbeddedRedis, keys: Keys
) -> None:
    patterns = [f"~{keys.prefix}{key}" for key in ("predict.*", "headrace:*", "celery-task-meta-*")]
    channels = ["resetchannels", f"&{keys.prefix}celery-task-meta-*"]
    rules = ["reset", "on", ">secret", "+@all", "-@admin", *patterns, *channels]
    db.execute_command("ACL", "SETUSER", "worker", *rules)
    with redis.Redis(port=any_redis.port, username="worker", password="secret") as confined:
        for _ in every_operation(confined, keys, Leases(confined, keys)):
            pass


def test_the_scripts_run_in_cluster_mode_with_a_hash_tag_as_prefix() -> None:
    keys = Keys("{one-slot}:")
    with (
        EmbeddedRedis(
            "--cluster-enabled", "yes", server=find_server("falkordb"), port=_free_cluster_port()
        ) as cluster,
        redis.Redis.from_url(cluster.url) as node,
    ):
        node.execute_command("CLUSTER", "ADDSLOTS", *range(16384))
        deadline = time.monotonic() + 20
        while node.execute_command("CLUSTER INFO")["cluster_state"] != "ok" and time.monotonic() < deadline:
            time.sleep(0.02)
        for _ in every_operation(node, keys, Leases(node, keys)):
            pass


def _free_cluster_port() -> int:
    """Return a free port for a cluster. Its bus listens 10,000 ports higher, below the range of client ports."""
    for port in random.sample(range(12_000, 22_000), 100):
        with socket.socket() as probe, socket.socket() as bus, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            bus.bind(("127.0.0.1", port + 10_000))
            return port
    raise AssertionError("no free port")
