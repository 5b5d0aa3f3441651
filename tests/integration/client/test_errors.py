"""An error of Redis reaches the user as a sentence: where, what, and what to do; never the password."""

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


def error_of(url: str, **settings: object) -> str:
    """Return the error of a submit to this Redis, which is the same for both clients."""
    all_settings = Settings(redis_url=url, **settings)  # type: ignore[arg-type]  # the test chooses them
    with Client(settings=all_settings, check=False) as client, pytest.raises(BrokerUnavailable) as caught:
        client.submit("churn", [1])

    async def submit() -> str:
        async with AsyncClient(settings=all_settings, check=False) as client:
            with pytest.raises(BrokerUnavailable) as caught_async:
                await client.submit("churn", [1])
        return str(caught_async.value)

    message = str(caught.value)
    assert asyncio.run(submit()).partition("(")[0] == message.partition("(")[0]
    assert SECRET not in message
    return message


@pytest.fixture(scope="module")
def guarded_server() -> Iterator[EmbeddedRedis]:
    with EmbeddedRedis("--requirepass", SECRET) as server:
        yield server


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_the_error_names_a_redis_that_is_down():
    port = free_port()
    start = time.monotonic()
    assert f"Redis at 127.0.0.1:{port} cannot be reached" in error_of(f"redis://:{SECRET}@127.0.0.1:{port}")
    # A Redis that never answered is not tried for as long as one that did.
    assert time.monotonic() - start < Settings().command_timeout


def test_the_error_names_a_host_that_does_not_exist():
    assert "Redis at no-such-host.invalid:6379 cannot be reached" in error_of("redis://no-such-host.invalid")


def test_the_error_names_a_socket_that_does_not_exist(tmp_path: Path):
    assert f"Redis at {tmp_path}/none.sock cannot be reached" in error_of(f"unix://{tmp_path}/none.sock")


def test_the_error_of_a_wrong_password_does_not_hold_it(guarded_server: EmbeddedRedis):
    message = error_of(f"redis://:{SECRET}-wrong@127.0.0.1:{guarded_server.port}/0")
    assert "refuses the user or password" in message


def test_a_missing_password_and_a_wrong_user_are_errors(guarded_server: EmbeddedRedis):
    assert "refuses the user or password" in error_of(guarded_server.url)
    assert "refuses the user or password" in error_of(
        f"redis://someone:{SECRET}@127.0.0.1:{guarded_server.port}/0"
    )


def test_a_password_that_redis_does_not_require_is_an_error(redis_url: str):
    assert "asks for no password" in error_of(redis_url.replace("redis://", f"redis://:{SECRET}@"))


def test_the_right_password_works(guarded_server: EmbeddedRedis):
    with Client(f"redis://:{SECRET}@127.0.0.1:{guarded_server.port}/0", check=False) as client:
        assert client.submit("churn", [1]).status() == "waiting"


def test_the_error_says_which_permission_a_user_lacks(guarded_server: EmbeddedRedis):
    with redis.Redis(port=guarded_server.port, password=SECRET) as admin:
        admin.acl_setuser(
            "limited", enabled=True, passwords=[f"+{SECRET}"], keys=["other:*"], categories=["+@all"]
        )
    message = error_of(f"redis://limited:{SECRET}@127.0.0.1:{guarded_server.port}/0")
    assert "does not permit this user" in message


def test_a_user_without_permission_for_the_channels_gets_an_error_instead_of_waiting(
    guarded_server: EmbeddedRedis,
):
    with redis.Redis(port=guarded_server.port, password=SECRET) as admin:
        admin.execute_command(
            "ACL", "SETUSER", "no-channels", "reset", "on", f">{SECRET}", "~*", "+@all", "resetchannels"
        )
    url = f"redis://no-channels:{SECRET}@127.0.0.1:{guarded_server.port}/0"
    with Client(url, check=False) as client, pytest.raises(BrokerUnavailable, match="does not permit"):
        client.job("a").result(timeout=30)


def test_a_redis_without_memory_refuses_the_job():
    with EmbeddedRedis("--maxmemory", "1") as server:
        message = error_of(server.url)
    assert "has no memory left" in message


def test_a_replica_is_an_error(redis_server: EmbeddedRedis):
    with EmbeddedRedis("--replicaof", "127.0.0.1", str(redis_server.port)) as replica:
        assert "read-only replica" in error_of(replica.url)


def test_a_redis_out_of_connections_is_an_error(guarded_server: EmbeddedRedis):
    with redis.Redis(port=guarded_server.port, password=SECRET) as admin:
        limit = admin.config_get("maxclients")["maxclients"]
        admin.config_set("maxclients", 1)
        try:
            assert "maxclients" in error_of(f"redis://:{SECRET}@127.0.0.1:{guarded_server.port}/0")
        finally:
            admin.config_set("maxclients", limit)


@contextmanager
def answering_with(reply: bytes | None) -> Iterator[int]:
    """A server that replies to everything with `reply`; to nothing, if it is None."""
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


def test_a_redis_that_loads_its_data_is_an_error():
    with answering_with(b"-LOADING Redis is loading the dataset in memory\r\n") as port:
        assert "still loading" in error_of(f"redis://127.0.0.1:{port}")


def test_a_silent_redis_is_an_error():
    with answering_with(None) as port:
        message = error_of(f"redis://127.0.0.1:{port}", command_timeout=0.2, connect_timeout=0.2)
    assert "does not answer in time" in message


def test_tls_to_a_plain_port_is_an_error(redis_server: EmbeddedRedis):
    assert "cannot be reached over TLS" in error_of(
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
    """A port that speaks TLS and forwards everything to another port."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate / "cert.pem", certificate / "key.pem")

    async def main() -> None:
        async def forward(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
            try:
                while data := await source.read(65536):
                    sink.write(data)
                    await sink.drain()
            except OSError:
                pass
            finally:
                sink.close()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            server_reader, server_writer = await asyncio.open_connection("127.0.0.1", port)
            await asyncio.gather(forward(reader, server_writer), forward(server_reader, writer))

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
    from tests.support.answering_worker import AnsweringWorker

    with over_tls(int(redis_url.rpartition(":")[2].partition("/")[0]), certificate) as port:
        url = f"rediss://localhost:{port}/0?ssl_ca_certs={certificate / 'cert.pem'}"
        with Client(url, check=False) as client, AnsweringWorker(redis_url):
            assert client.predict("churn", {"age": 4}, timeout=20).prediction == 8
            jobs = client.submit_many("churn", [{"age": age} for age in range(200)])
            assert len(list(client.as_completed(jobs, timeout=20))) == 200


def test_an_untrusted_certificate_is_an_error(redis_server: EmbeddedRedis, certificate: Path):
    with over_tls(redis_server.port, certificate) as port:
        assert "cannot be reached over TLS" in error_of(f"rediss://localhost:{port}/0")


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("http://h", "must begin with redis://"),
        ("", "must begin with redis://"),
        ("localhost:6379", "must begin with redis://"),
        (f"redis://:{SECRET}/x@h:1/0", "no usable host and port"),
        (f"redis://:a#{SECRET}@h", "no usable host and port"),
        (f"redis://u:1?{SECRET}@h", "where none belongs"),
        (f"redis://h:99999/{SECRET}", "no usable host and port"),
        (f"redis://h/{SECRET}", "does not end in a database number"),
        (f"redis://h?{SECRET}=1&password=x&bogus=2", "has an option redis-py does not take"),
        ("redis://h?socket_timeout=x", "has an option redis-py does not take"),
        ("unix://", "names no socket"),
        ("redis://:p@:6379", "has no host"),
        (7, "must be a text"),
    ],
)
def test_an_impossible_url_is_refused_when_the_client_is_made(url: str, message: str):
    for kind in (Client, AsyncClient):
        with pytest.raises(SettingError, match=message) as caught:
            kind(url)
        if "option" not in message:
            assert SECRET not in str(caught.value)


def test_every_error_is_a_headrace_error():
    assert issubclass(BrokerUnavailable, HeadraceError)
    assert issubclass(BrokerUnavailable, ConnectionError)
