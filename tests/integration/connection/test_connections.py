"""Clients, plain Celery, a worker and Flower work over every kind of connection to a real Redis."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
import redis
from celery import Celery
from kombu.exceptions import OperationalError

from headrace import Client, Settings
from headrace.connection.celery import create_celery_app
from headrace.errors import BrokerUnavailable
from headrace_worker.local.embedded_redis import EmbeddedRedis
from headrace_worker.transport import broker_settings
from tests.support.certificates import make_authority, speaks_tls, tls_options
from tests.support.claim_models import SLEEP, add_model, count_claims, running_worker
from tests.support.connections import (
    MODEL,
    capture_events,
    close_pools,
    count_waiting_in_flower,
    exercise_celery_app,
    exercise_client,
    free_port,
    kill_pool,
    running_server,
)
from tests.support.rare_polls import OPTIONS, SETTINGS
from tests.support.redis_servers import SERVERS, find_server
from tests.support.waiting import wait_until


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return add_model(tmp_path_factory.mktemp("models"), max_batch_instances=16)


def everything_works(settings: Settings, models: Path, folder: Path, server: redis.Redis) -> None:
    """Submit jobs before a worker starts, use everything while it runs, and check that kombu claimed nothing."""
    with Client(settings=settings, check=False) as client:
        waiting = client.submit_many(MODEL, [[n, 0, 0] for n in range(3)])
    assert count_waiting_in_flower(settings) == 3
    with running_worker(
        url=settings.redis_url, models=models, folder=folder, HEADRACE_KEY_PREFIX=settings.key_prefix
    ):
        exercise_client(settings)
        exercise_celery_app(settings)
        with Client(settings=settings) as client:
            assert [client.job(job.id).result(timeout=0).prediction for job in waiting] == [0, 2, 4]
            running = client.submit(MODEL, [1, SLEEP, 0.5])
            wait_until(lambda: count_claims(server, settings.key_prefix))
            assert running.result(timeout=10).prediction == 2
    assert not server.exists(f"{settings.key_prefix}unacked", f"{settings.key_prefix}unacked_index")


def test_a_unix_socket(models: Path, tmp_path: Path) -> None:
    path = tmp_path / "redis.sock"
    client = redis.Redis(unix_socket_path=str(path))
    command = [find_server("path"), "--port", "0", "--unixsocket", path, "--save", "", "--dir", tmp_path]
    with running_server(command, tmp_path, "redis", client):
        everything_works(Settings(redis_url=f"unix://{path}"), models, tmp_path, client)


def test_one_url_of_a_socket_suits_headrace_and_a_plain_celery_app(tmp_path: Path) -> None:
    path = tmp_path / "redis.sock"
    command = [find_server("path"), "--port", "0", "--unixsocket", path, "--save", "", "--dir", tmp_path]
    url = f"redis+socket://{path}?virtual_host=1"
    with running_server(command, tmp_path, "redis", redis.Redis(unix_socket_path=str(path))):
        assert_suits_both(url)


def assert_suits_both(url: str) -> None:
    """Send a job with a plain Celery app, and cancel it with a client that has the same URL."""
    with Celery(broker=url, backend=url) as app:
        app.backend.client.ping()
        job = app.send_task("headrace.predict", args=["other", [[1]]], queue="predict.other")
        app.backend.client.connection_pool.disconnect()
        close_pools(app)
    with Client(url, check=False) as client:
        own = client.submit("other", [1])
        assert client.job(job.id).cancel(unknown=True)
        assert own.status() == "waiting"
    with create_celery_app(Settings(redis_url=url)) as own_app:
        assert own_app.AsyncResult(job.id).state == "REVOKED"
        own_app.backend.client.connection_pool.disconnect()


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a private certificate authority, `ca.pem`, and a certificate of it, `server.pem`."""
    return make_authority(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def tls(authority: Path) -> Iterator[tuple[str, Path]]:
    """Run a Redis with a password that accepts only TLS. Return its URL and the folder of the authority."""
    server, port = find_server("path"), free_port()
    if not speaks_tls(server):
        pytest.skip(f"{server} is built without TLS")
    command = [server, "--port", "0", "--tls-port", str(port), "--save", "", "--bind", "127.0.0.1"]
    command += [*tls_options(authority), "--requirepass", "p@ss"]
    client = redis.Redis("127.0.0.1", port, password="p@ss", ssl=True, ssl_ca_certs=str(authority / "ca.pem"))
    with running_server(command, authority, "redis", client):
        yield f"rediss://:p%40ss@127.0.0.1:{port}/0?ssl_ca_certs={authority / 'ca.pem'}", authority


def test_tls_with_a_private_authority(tls: tuple[str, Path], models: Path, tmp_path: Path) -> None:
    url, _ = tls
    with redis.Redis.from_url(url) as server:
        everything_works(Settings(redis_url=url), models, tmp_path, server)
        port = server.connection_pool.connection_kwargs["port"]
    with redis.Redis(port=port, socket_timeout=1, retry=None) as plain, pytest.raises(redis.RedisError):
        plain.ping()


@pytest.mark.parametrize("check", ["CERT_REQUIRED", "CERT_NONE"])
def test_one_url_over_tls_suits_headrace_and_a_plain_celery_app(tls: tuple[str, Path], check: str) -> None:
    assert_suits_both(f"{tls[0]}&ssl_cert_reqs={check}")


def test_a_password_may_hold_any_letter(tmp_path: Path) -> None:
    password = "a[b]c%40 d;é"
    server_command = [find_server("path"), "--save", "", "--dir", tmp_path, "--bind", "127.0.0.1"]
    port = free_port()
    admin = redis.Redis(port=port, password=password)
    with running_server(
        [*server_command, "--port", str(port), "--requirepass", password], tmp_path, "redis", admin
    ):
        for written in (quote(password, safe=""), "a[b]c%2540 d;é"):
            url = f"redis://:{written}@127.0.0.1:{port}/0"
            with Client(url, check=False) as client:
                assert client.submit("churn", [1]).status() == "waiting"
            with create_celery_app(Settings(redis_url=url)) as app:
                app.backend.client.ping()
                app.backend.client.connection_pool.disconnect()


@pytest.mark.parametrize("transport", ["kombu", "headrace"])
def test_no_certificate_of_an_unknown_authority_is_trusted(tls: tuple[str, Path], transport: str) -> None:
    url = tls[0].partition("?")[0]
    with create_celery_app(Settings(redis_url=url)) as app:
        if transport == "headrace":
            app.conf.update(broker_settings(app.conf.broker_url))
        with app.connection_for_read() as connection:
            assert connection.transport_cls == ("headrace" if transport == "headrace" else "rediss")
            with pytest.raises(OperationalError, match="CERTIFICATE_VERIFY_FAILED"):
                connection.ensure_connection(max_retries=1, interval_start=0)
        with pytest.raises(redis.ConnectionError, match="CERTIFICATE_VERIFY_FAILED"):
            app.backend.client.ping()
    with Client(url) as client, pytest.raises(BrokerUnavailable, match="cannot be reached over TLS"):
        client.models()


def test_two_installations_on_one_database_do_not_see_each_other_and_use_no_other_database(
    models: Path, tmp_path: Path, redis_url: str, server: redis.Redis
) -> None:
    url = redis_url.removesuffix("/0") + "/3"
    first, second = (Settings(redis_url=url, key_prefix=prefix) for prefix in ("first:", "second_"))
    second_worker = {"url": url, "models": models, "folder": tmp_path, "HEADRACE_KEY_PREFIX": "second_"}
    with create_celery_app(second) as app, running_worker(**second_worker, name="two"):
        with capture_events(app) as events, redis.Redis.from_url(url) as third:
            everything_works(first, models, tmp_path, third)
            keys = list(third.scan_iter())
        assert {kind for _, kind in events} == {"worker-heartbeat"}
        assert set(app.control.inspect(timeout=2).ping()) == {"two@test"}
        with Client(settings=first) as first_client, Client(settings=second) as second_client:
            job = second_client.submit(MODEL, [1, 0, 0], id="same-id")
            assert job.result(timeout=10).prediction == 2
            assert first_client.job("same-id").status() == "unknown"
            assert first_client.submit(MODEL, [2, 0, 0], id="same-id").status() == "waiting"
    assert keys
    assert [key for key in keys if not key.startswith((b"first:", b"second_"))] == []
    assert list(server.scan_iter()) == []


@pytest.mark.parametrize("version", [name for name in SERVERS if name != "valkey"])  # test_acl.py and others
def test_every_version_of_redis(version: str, models: Path, tmp_path: Path) -> None:
    with (
        EmbeddedRedis("--appendfsync", "no", server=find_server(version)) as embedded,
        redis.Redis.from_url(embedded.url) as server,
        running_worker(*OPTIONS, url=embedded.url, models=models, folder=tmp_path, **SETTINGS) as worker,
        Client(embedded.url) as client,
    ):
        exercise_client(Settings(redis_url=embedded.url))
        jobs = client.submit_many(MODEL, [[n, SLEEP, 0.5] for n in range(100, 104)])
        wait_until(lambda: count_claims(server))
        kill_pool(worker)
        assert [job.result(timeout=20).prediction for job in jobs] == [2 * n for n in range(100, 104)]
        wait_until(lambda: not count_claims(server) and not server.exists("headrace:isolated:predict.doubling"))
        for n in range(9):  # the idle worker wakes for each
            time.sleep(0.05 + 0.013 * n)
            client.predict(MODEL, [n, 0, 0], timeout=20)
