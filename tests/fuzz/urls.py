"""URLs of settings: each is taken, or refused in a sentence that does not show its password."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable

import msgspec

from headrace.connection.connect import connect
from headrace.connection.url import explain_bad_options, parse_address
from headrace.errors import HeadraceError
from headrace.settings import Settings
from headrace_gateway.notify.endpoints import parse_endpoints
from headrace_gateway.settings import GatewaySettings
from headrace_worker.bulk.locations import Locations
from headrace_worker.bulk.sources import compile_glob, read_partitions
from headrace_worker.settings import WorkerSettings
from headrace_worker.store.store import Store
from tests.fuzz.packed import mutate_lines
from tests.fuzz.target import Target

_PASSWORD = "hunter2"
#: A URL whose password nobody can take for anything else.
_HAS_PASSWORD = re.compile(r"(?:in=)?[a-z0-9]+://[a-z]{0,9}:hunter2@[a-z0-9.]+(?:[:/]|$)")
_REDIS = (
    "redis://localhost:6379/0",
    "redis://user:hunter2@redis.example:6379/3?socket_timeout=5&health_check_interval=3",
    "rediss://:hunter2@redis:6380?ssl_ca_certs=/ca.pem&ssl_cert_reqs=required",
    "unix://user:hunter2@/run/redis.sock?db=1",
    "redis+socket:///run/redis.sock?virtual_host=2",
    "sentinel://user:hunter2@one:26379;sentinel://two:26379/0?master_name=mymaster&sentinel_password=x",
    "cluster://user:hunter2@one:6379,two:6380?ssl_cert_reqs=none",
    "redis://[::1]:6379/0?protocol=2",
)
_STORES = (
    "./models",
    "s3://bucket/models",
    "memory://user:hunter2@bucket/models",
    "gs://bucket",
    "file:///models",
)
_LOCATIONS = (
    "in=memory://lake/in:r,out=/srv/out:w\nin:2026-11/a.parquet\nout:scores/",
    "in=s3://user:hunter2@lake/in:rw\nin:*/year=2026/**/part-?.csv.gz",
    "a=file:///srv:rw,b=https://example.com/x:r\na:x=1/y=__HIVE_DEFAULT_PARTITION__/z.jsonl\nb:",
)
_SECRET = "whsec_" + "YWFh" * 10
_ENDPOINTS = (
    f'[shop]\nurl = "https://example.com/hook"\nsecrets = ["{_SECRET}"]\n',
    f'[a]\nurl = "http://localhost/"\nsecrets = ["{_SECRET}"]\nevents = ["success"]\n',
    '[b]\nurl = "https://h/"\nsecrets = ["x"]\nfull = true\nallow_http = true\nheaders = { Expect = "x" }\n',
    f'[b]\nurl = "https://user:hunter2@example.com/hook"\nsecrets = ["{_SECRET}"]\n',
)


def url_targets() -> list[Target]:
    """Return the targets of the URLs that a person configures."""
    return [
        Target(
            name=name,
            inputs=[text.encode() for text in texts],
            run=run,
            count=2_000,
            mutate=mutate_lines,
            confined=True,
        )
        for name, texts, run in (
            ("a Redis URL", _REDIS, _text_reader(_read_redis)),
            ("a store URL", _STORES, _text_reader(_read_store)),
            ("a bulk location", _LOCATIONS, _text_reader(_read_location)),
            ("notify endpoints", _ENDPOINTS, _text_reader(_read_endpoints)),
            ("gateway origins", ("https://shop.example.com, http://localhost:3000",), _text_reader(_read_origins)),
        )
    ]


def _text_reader(read: Callable[[str], None]) -> Callable[[bytes], None]:
    def run(data: bytes) -> None:
        text = data.decode("utf-8", "surrogateescape")  # as a variable of the environment has it
        try:
            read(text)
        except HeadraceError as error:
            message = str(error)
            message.encode("utf-8", "surrogateescape")
            if _shows_password(message, text):
                raise AssertionError(f"the error shows the password: {message}") from None

    return run


def _shows_password(shown: str, text: str) -> bool:
    return _PASSWORD in shown and text.count(_PASSWORD) == 1 and _HAS_PASSWORD.match(text) is not None


def _read_redis(text: str) -> None:
    address = parse_address(text)
    with explain_bad_options(address):
        assert isinstance(address.options, dict)
    for shown in (address.location, ",".join(address.option_names)):
        if _shows_password(shown, text):
            raise AssertionError(f"the place of Redis shows the password: {shown}")
    with explain_bad_options(address):
        parse_address(address.url)
        assert address.celery_url
    if not address.nodes:  # a client of a cluster connects at once
        connect(Settings(redis_url=text)).close()


def _read_store(text: str) -> None:
    if "memory:" in text or "/" not in text:
        settings = msgspec.convert({"models": text}, WorkerSettings)
        title = Store.from_settings(settings).title
        assert not _shows_password(title, text), title


def _read_location(text: str) -> None:
    setting, *references = text.split("\n")
    locations = Locations(setting)
    for reference in references:
        for for_writing in (False, True):
            with contextlib.suppress(HeadraceError):
                file = locations.resolve(reference, for_writing=for_writing)
                assert ".." not in file.path.split("/"), file.path
                assert not file.path.startswith("/"), file.path
        read_partitions(reference)
        with contextlib.suppress(HeadraceError):
            compile_glob(reference)("a/b/c")


def _read_endpoints(text: str) -> None:
    for endpoint in parse_endpoints(text, "endpoints.toml").values():
        assert endpoint.keys


def _read_origins(text: str) -> None:
    assert all("*" not in origin for origin in GatewaySettings(gateway_origins=text).origins)
