"""What goes wrong with Redis is told in a sentence: where, what, and what to do; never the password."""

from __future__ import annotations

import asyncio
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis

from headrace import AsyncClient, Client
from headrace.errors import BrokerUnavailable, HeadraceError, SettingError
from headrace.settings import Settings
from headrace_worker.local.embedded_redis import EmbeddedRedis

SECRET = "s3cret-Pa55"


def told(url: str, **settings: object) -> str:
    """What both clients say, which is the same, of a submit to this Redis."""
    chosen = Settings(redis_url=url, **settings)  # type: ignore[arg-type]  # what a test chooses
    with Client(settings=chosen, check=False) as client, pytest.raises(BrokerUnavailable) as caught:
        client.submit("churn", [1])

    async def ask() -> str:
        async with AsyncClient(settings=chosen, check=False) as client:
            with pytest.raises(BrokerUnavailable) as also:
                await client.submit("churn", [1])
        return str(also.value)

    said = str(caught.value)
    assert asyncio.run(ask()).partition("(")[0] == said.partition("(")[0]
    assert SECRET not in said
    return said


@pytest.fixture(scope="module")
def guarded_server() -> Iterator[EmbeddedRedis]:
    with EmbeddedRedis("--requirepass", SECRET) as server:
        yield server


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_a_redis_that_is_down_is_named():
    port = free_port()
    began = time.monotonic()
    assert f"Redis at 127.0.0.1:{port} cannot be reached" in told(f"redis://:{SECRET}@127.0.0.1:{port}")
    assert time.monotonic() - began < 10


def test_a_host_that_is_none_is_named():
    assert "Redis at no-such-host.invalid:6379 cannot be reached" in told("redis://no-such-host.invalid")


def test_a_socket_that_is_none_is_named(tmp_path: Path):
    assert f"Redis at {tmp_path}/none.sock cannot be reached" in told(f"unix://{tmp_path}/none.sock")


def test_a_wrong_password_is_told_without_it(guarded_server: EmbeddedRedis):
    said = told(f"redis://:{SECRET}-wrong@127.0.0.1:{guarded_server.port}/0")
    assert "refuses the user or password" in said


def test_a_missing_password_and_a_wrong_user_are_told(guarded_server: EmbeddedRedis):
    assert "refuses the user or password" in told(guarded_server.url)
    assert "refuses the user or password" in told(f"redis://someone:{SECRET}@127.0.0.1:{guarded_server.port}/0")


def test_a_password_that_is_not_asked_for_is_told(redis_url: str):
    assert "asks for no password" in told(redis_url.replace("redis://", f"redis://:{SECRET}@"))


def test_the_right_password_works(guarded_server: EmbeddedRedis):
    with Client(f"redis://:{SECRET}@127.0.0.1:{guarded_server.port}/0", check=False) as client:
        assert client.submit("churn", [1]).status() == "queued"


def test_a_user_without_permission_is_told_what_is_missing(guarded_server: EmbeddedRedis):
    with redis.Redis(port=guarded_server.port, password=SECRET) as admin:
        admin.acl_setuser(
            "limited", enabled=True, passwords=[f"+{SECRET}"], keys=["other:*"], categories=["+@all"]
        )
    said = told(f"redis://limited:{SECRET}@127.0.0.1:{guarded_server.port}/0")
    assert "does not permit this user" in said


def test_a_user_without_the_channels_hears_it_instead_of_waiting(guarded_server: EmbeddedRedis):
    with redis.Redis(port=guarded_server.port, password=SECRET) as admin:
        admin.execute_command(
            "ACL", "SETUSER", "deaf", "reset", "on", f">{SECRET}", "~*", "+@all", "resetchannels"
        )
    url = f"redis://deaf:{SECRET}@127.0.0.1:{guarded_server.port}/0"
    with Client(url, check=False) as client, pytest.raises(BrokerUnavailable, match="does not permit"):
        client.job("a").result(timeout=30)


def test_a_redis_without_memory_refuses_the_job():
    with EmbeddedRedis("--maxmemory", "1") as server:
        said = told(server.url)
    assert "has no memory left" in said


def test_a_replica_is_told_from_a_primary(redis_server: EmbeddedRedis):
    with EmbeddedRedis("--replicaof", "127.0.0.1", str(redis_server.port)) as replica:
        assert "read-only replica" in told(replica.url)


def test_a_redis_out_of_connections_is_told(guarded_server: EmbeddedRedis):
    with redis.Redis(port=guarded_server.port, password=SECRET) as admin:
        before = admin.config_get("maxclients")["maxclients"]
        admin.config_set("maxclients", 1)
        try:
            assert "maxclients" in told(f"redis://:{SECRET}@127.0.0.1:{guarded_server.port}/0")
        finally:
            admin.config_set("maxclients", before)


@contextmanager
def answering_with(reply: bytes | None) -> Iterator[int]:
    """A server that gives one answer to everything, or none."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        stop = threading.Event()
        listener.settimeout(0.05)

        def serve() -> None:
            connections = []
            while not stop.is_set():
                try:
                    connection, _ = listener.accept()
                except TimeoutError:
                    pass
                else:
                    connection.settimeout(0.02)
                    connections.append(connection)
                for connection in list(connections):
                    try:
                        if not connection.recv(65536):
                            raise ConnectionError
                        if reply is not None:
                            connection.sendall(reply)
                    except TimeoutError:
                        pass
                    except OSError:
                        connections.remove(connection)
                        connection.close()
            for connection in connections:
                connection.close()

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            stop.set()
            thread.join()


def test_a_redis_that_loads_its_data_is_told():
    with answering_with(b"-LOADING Redis is loading the dataset in memory\r\n") as port:
        assert "still loading" in told(f"redis://127.0.0.1:{port}")


def test_a_silent_redis_is_told():
    with answering_with(None) as port:
        said = told(f"redis://127.0.0.1:{port}", command_timeout=0.2, connect_timeout=0.2)
    assert "does not answer in time" in said


def test_a_plain_port_spoken_to_with_tls_is_told(redis_server: EmbeddedRedis):
    assert "cannot be reached over TLS" in told(
        f"rediss://127.0.0.1:{redis_server.port}/0", connect_timeout=0.3, command_timeout=0.3
    )


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tls")
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"),
            *("-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"),
            *("-keyout", str(folder / "key.pem"), "-out", str(folder / "cert.pem")),
        ],
        check=True,
        capture_output=True,
        timeout=60,
    )
    return folder


@contextmanager
def over_tls(port: int, certificate: Path) -> Iterator[int]:
    """A port that speaks TLS and passes everything on to another."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate / "cert.pem", certificate / "key.pem")

    async def main() -> None:
        async def passed_on(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
            try:
                while data := await source.read(65536):
                    sink.write(data)
                    await sink.drain()
            except OSError:
                pass
            finally:
                sink.close()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            back, forth = await asyncio.open_connection("127.0.0.1", port)
            await asyncio.gather(passed_on(reader, forth), passed_on(back, writer))

        server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
        ports.append(server.sockets[0].getsockname()[1])
        started.set()
        async with server:
            await asyncio.to_thread(stop.wait)
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()

    ports: list[int] = []
    started, stop = threading.Event(), threading.Event()
    thread = threading.Thread(target=lambda: asyncio.run(main()))
    thread.start()
    try:
        assert started.wait(10)
        yield ports[0]
    finally:
        stop.set()
        thread.join()


def test_jobs_are_submitted_and_waited_for_over_tls(redis_url: str, server: redis.Redis, certificate: Path):
    from tests.support.answering_worker import Answering

    with over_tls(int(redis_url.rpartition(":")[2].partition("/")[0]), certificate) as port:
        url = f"rediss://localhost:{port}/0?ssl_ca_certs={certificate / 'cert.pem'}"
        with Client(url, check=False) as client, Answering(redis_url):
            assert client.predict("churn", {"age": 4}, timeout=20).prediction == 8
            jobs = client.submit_many("churn", [{"age": age} for age in range(200)])
            assert len(list(client.as_completed(jobs, timeout=20))) == 200


def test_a_certificate_nobody_vouches_for_is_told(redis_server: EmbeddedRedis, certificate: Path):
    with over_tls(redis_server.port, certificate) as port:
        assert "cannot be reached over TLS" in told(f"rediss://localhost:{port}/0")


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://h", "must begin with redis://"),
        ("", "must begin with redis://"),
        ("localhost:6379", "must begin with redis://"),
        (f"redis://:{SECRET}/x@h:1/0", "no usable host and port"),
        (f"redis://:a#{SECRET}@h", "no usable host and port"),
        (f"redis://u:1?{SECRET}@h", "where none belongs"),
        (f"redis://h:99999/{SECRET}", "no usable host and port"),
        (f"redis://h/{SECRET}", "no database number"),
        (f"redis://h?{SECRET}=1&password=x&bogus=2", "has an option redis-py does not take"),
        ("redis://h?socket_timeout=x", "has an option redis-py does not take"),
        ("unix://", "names no socket"),
        ("redis://:p@:6379", "has no host"),
        (7, "is a text"),
    ],
)
def test_a_url_that_cannot_be_is_refused_when_the_client_is_made(url: str, said: str):
    for kind in (Client, AsyncClient):
        with pytest.raises(SettingError, match=said) as caught:
            kind(url)
        if "option" not in said:
            assert SECRET not in str(caught.value)


def test_every_error_is_a_headrace_error():
    assert issubclass(BrokerUnavailable, HeadraceError)
    assert issubclass(BrokerUnavailable, ConnectionError)
