"""Redis URLs are read, shown without secrets, and written for plain Celery."""

from __future__ import annotations

import json

import msgspec
import pytest
from kombu.utils.json import dumps

from headrace import Client, Settings
from headrace.connection.celery import create_celery_app
from headrace.connection.connect import connect, connect_async
from headrace.connection.url import parse_address
from headrace.errors import SettingError
from headrace.settings import load_settings

SECRET = "s3cret"
SENTINELS = f"sentinel://me:{SECRET}@a:1;sentinel://b;sentinel://[::1]:3/4?master_name=jobs"


@pytest.mark.parametrize(
    ("url", "location", "celery_url"),
    [
        ("redis://", "localhost:6379", "redis://localhost:6379/0"),
        ("redis://h:1/3", "h:1", "redis://h:1/3"),
        ("redis://h?db=3&socket_timeout=5", "h:6379", "redis://h:6379/3"),
        ("redis://:a%40%2F%3B@h", "h:6379", "redis://:a%40%2F%3B@h:6379/0"),
        ("redis://[::1]:1/2", "::1:1", "redis://[::1]:1/2"),
        ("rediss://me:x@h:1", "h:1", "rediss://me:x@h:1/0"),
        ("unix:///a/b.sock?db=2", "/a/b.sock", "redis+socket:///a/b.sock?virtual_host=2"),
        ("unix://me:x@/a.sock", "/a.sock", "redis+socket://me:x@/a.sock?virtual_host=0"),
        ("redis+socket:///a.sock?virtual_host=3", "/a.sock", "redis+socket:///a.sock?virtual_host=3"),
        ("redis+socket://me:x@/a.sock", "/a.sock", "redis+socket://me:x@/a.sock?virtual_host=0"),
        ("redis://h", "h:6379", "redis://h:6379/0"),
        ("redis://h/", "h:6379", "redis://h:6379/0"),
        ("redis:///2", "localhost:6379", "redis://localhost:6379/2"),
        ("REDIS://H:1/3", "h:1", "redis://h:1/3"),
        ("RedisS://h", "h:6379", "rediss://h:6379/0"),
        (" redis://h:1/3\n", "h:1", "redis://h:1/3"),
        ("'redis://h:1/3'", "h:1", "redis://h:1/3"),
        ('"redis://h:1/3" ', "h:1", "redis://h:1/3"),
        ("\ufeffredis://h:1/3", "h:1", "redis://h:1/3"),
        ("redis://:a[b]c@h", "h:6379", "redis://:a%5Bb%5Dc@h:6379/0"),
        ("redis://:[@[::1]:1/0", "::1:1", "redis://:%5B@[::1]:1/0"),
        ("redis://:p@ss@h", "h:6379", "redis://:p%40ss@h:6379/0"),
        ("redis://:a;b@h", "h:6379", "redis://:a%3Bb@h:6379/0"),
        ("redis://:%20x%25@h", "h:6379", "redis://:%20x%25@h:6379/0"),
        ("redis://me@h", "h:6379", "redis://me:@h:6379/0"),
        ("redis://h?health_check_interval=5&socket_keepalive=true&client_name=x", "h:6379", "redis://h:6379/0"),
        ("redis://h/1?decode_responses=False&protocol=2&encoding=utf-8", "h:6379", "redis://h:6379/1"),
        ("rediss://h?ssl_cert_reqs=CERT_NONE&ssl_check_hostname=false", "h:6379", "rediss://h:6379/0"),
        (
            "sentinel://a ; sentinel://b/1?master_name=jobs",
            "jobs (by Sentinel: a:26379, b:26379)",
            "sentinel://a:26379/1;sentinel://b:26379/1",
        ),
        (
            SENTINELS,
            "jobs (by Sentinel: a:1, b:26379, ::1:3)",
            f"sentinel://me:{SECRET}@a:1/4;sentinel://me:{SECRET}@b:26379/4;sentinel://me:{SECRET}@[::1]:3/4",
        ),
        ("cluster://a", "a cluster (a:6379)", "redis://a:6379/0"),
        (
            f"Cluster://me:{SECRET}@a:1, b,[::1]:3/0?health_check_interval=5",
            "a cluster (a:1, b:6379, ::1:3)",
            f"redis://me:{SECRET}@a:1/0",
        ),
        (f"cluster://:{SECRET}@a?ssl_cert_reqs=none", "a cluster (a:6379)", f"rediss://:{SECRET}@a:6379/0"),
    ],
)
def test_a_url_has_a_location_for_messages_and_a_form_for_celery(url: str, location: str, celery_url: str) -> None:
    address = parse_address(url)
    assert address.location == location
    assert address.celery_url == celery_url
    settings = Settings(redis_url=url)
    assert SECRET not in repr(create_celery_app(settings).connection())
    connect(settings).close()
    connect_async(settings)


def test_certificates_are_checked_unless_an_option_turns_it_off() -> None:
    assert parse_address("redis://h").tls is None
    assert parse_address("rediss://h").tls == {"ssl_cert_reqs": "required"}
    assert parse_address("rediss://h?ssl_cert_reqs=none&ssl_ca_certs=/ca&ssl_check_hostname=false").tls == {
        "ssl_cert_reqs": "none",
        "ssl_ca_certs": "/ca",
        "ssl_check_hostname": False,
    }
    assert parse_address(SENTINELS).tls is None
    assert parse_address(SENTINELS + "&ssl_ca_certs=/ca").tls == {
        "ssl_cert_reqs": "required",
        "ssl_ca_certs": "/ca",
    }


@pytest.mark.parametrize(
    ("value", "check"),
    [
        *(("CERT_REQUIRED", "required"), ("CERT_OPTIONAL", "optional"), ("CERT_NONE", "none")),
        *(("required", "required"), ("optional", "optional"), ("none", "none"), ("None", "none")),
    ],
)
def test_the_check_of_certificates_is_written_as_celery_or_as_redis_py_does(value: str, check: str) -> None:
    for url in (f"rediss://h/0?ssl_cert_reqs={value}", f"{SENTINELS}&ssl_cert_reqs={value}"):
        assert parse_address(url).tls == {"ssl_cert_reqs": check}
        connect(Settings(redis_url=url)).close()


def test_the_login_of_the_sentinels_is_never_printed() -> None:
    url = f"{SENTINELS.replace(SECRET, 'x')}&sentinel_username=you&sentinel_password={SECRET}"
    assert parse_address(url).sentinel_login == {"username": "you", "password": SECRET}
    options = create_celery_app(Settings(redis_url=url)).conf.broker_transport_options
    assert options["sentinel_kwargs"]["password"] == SECRET
    assert SECRET not in dumps(options) + repr(options) + str(options)
    assert json.loads(dumps(options))["master_name"] == "jobs"


@pytest.mark.parametrize(
    ("url", "message"),
    [
        (f"sentinel://:{SECRET}@a;sentinel://b/0", r"end it in \?master_name=NAME"),
        (f"sentinel://:{SECRET}@a;b:26379/0?master_name=x", "each Sentinel is written out"),
        (f"sentinel://:{SECRET}@a,b:26379/0?master_name=x", "each Sentinel is written out"),
        (f"sentinel://:{SECRET}@a/zero?master_name=x", "not end in a database number"),
        (f"sentinel://:{SECRET}@a:b?master_name=x", "no usable host and port"),
        (f"sentinel://:{SECRET}#@a?master_name=x", "in a password, write"),
        (f"sentinel://:{SECRET}@[a?master_name=x", "no usable host and port"),
        (f"sentinel://:{SECRET}@a?master_name=x&nonsense=1", "an option redis-py does not take, among nonsense"),
        (f"redis://:{SECRET}@h?socket_timeout=soon", "an option redis-py does not take, among socket_timeout"),
        (f"cluster://:{SECRET}@a,b/1", "only the database 0"),
        (f"cluster://:{SECRET}@a?db=2", "only the database 0"),
        (f"cluster://:{SECRET}@", "names no node of the cluster"),
        (f"cluster://:{SECRET}@a;cluster://b", "written with commas"),
        (f"cluster://:{SECRET}@a,b:c", "no usable host and port"),
        (f"cluster://:{SECRET}@a,::1:6379", "an IPv6 address in brackets"),
        (f"cluster://:{SECRET}@a,b?nonsense=1", "an option redis-py does not take, among nonsense"),
        (f"cluster://:{SECRET}@a?protocol=3", "sets protocol"),
        (f"redis-sentinel://:{SECRET}@a", "must begin with"),
        (
            f"redis://:{SECRET}@h?decode_responses=True",
            "sets decode_responses, which Headrace sets itself; remove it",
        ),
        (f"redis://:{SECRET}@h/0?protocol=3", "sets protocol, which Headrace sets itself; remove it"),
        (f"redis://:{SECRET}@h/0?encoding=utf-16", "sets encoding"),
        (f"redis://:{SECRET}@h/0?retry=3", "sets retry"),
        (f"{SENTINELS}&protocol=3", "sets protocol"),
        (f"redis://:{SECRET}@h/0?ssl_cert_reqs=none", "has ssl_cert_reqs without TLS; write rediss://"),
        (f"rediss://:{SECRET}@h/0?ssl_cert_reqs=maybe", "is CERT_REQUIRED, CERT_OPTIONAL or CERT_NONE"),
        (f"redis://:{SECRET}@::1:6379/0", "an IPv6 address in brackets"),
        (f"redis+socket://:{SECRET}@", "names no socket"),
        (f"  '{SECRET}'  ", "must begin with"),
    ],
)
def test_an_invalid_url_is_refused_without_its_password(url: str, message: str) -> None:
    with pytest.raises(SettingError, match=message) as caught:
        Client(url).close()
    assert SECRET not in str(caught.value)


def test_a_url_with_bytes_that_are_not_utf8_is_refused() -> None:
    with pytest.raises(SettingError, match="is not UTF-8"):
        parse_address("redis://h:1/0?socket_timeout=\udcff")


def test_a_cluster_has_a_hash_tag_as_its_prefix_and_other_servers_have_none() -> None:
    cluster = load_settings(Settings, {"HEADRACE_REDIS_URL": "cluster://a"})
    assert cluster.key_prefix == "{headrace}:"
    assert msgspec.structs.replace(cluster, redis_url="redis://a").key_prefix == ""
    assert msgspec.structs.replace(Settings(), redis_url=" 'CLUSTER://a'").key_prefix == "{headrace}:"
    chosen = Settings(redis_url="cluster://a", key_prefix="{shop}:")
    assert msgspec.structs.replace(chosen, redis_url="redis://a").key_prefix == "{shop}:"
