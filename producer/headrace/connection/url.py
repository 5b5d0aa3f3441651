"""The address of Redis: the URL of the settings, read and checked.

    redis://[USER:PASSWORD@]HOST[:6379][/DATABASE]
    rediss://...                                     the same over TLS, with options like ssl_ca_certs=FILE
    unix://[USER:PASSWORD@]/path/to.sock[?db=DATABASE]
    redis+socket://[USER:PASSWORD@]/path/to.sock[?virtual_host=DATABASE]         the same, as Celery writes it
    sentinel://[USER:PASSWORD@]HOST[:26379];sentinel://HOST[:26379]/DATABASE?master_name=NAME
    cluster://[USER:PASSWORD@]HOST[:6379],HOST[:6379]

Options after the `?` are redis-py's. In a `sentinel://` URL, user and password are those of Redis; those of the
Sentinels are the options `sentinel_username` and `sentinel_password`. An option `ssl_...` there turns on TLS, both
to Redis and to the Sentinels; in a `cluster://` URL, to all nodes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

import msgspec
from redis.connection import parse_url
from redis.exceptions import RedisError

from headrace.errors import SettingError
from headrace.settings import BLANKS_AND_QUOTES, Settings
from headrace.wire.keys import has_hash_tag

_SCHEMES = ("redis", "rediss", "unix", "sentinel", "cluster")
_PORT, _SENTINEL_PORT = 6379, 26379

#: Options of redis-py that a URL must not set, as the code depends on them, and the values that change nothing.
_OWN_OPTIONS: dict[str, frozenset[str]] = {
    "decode_responses": frozenset(("false", "0", "no", "f", "n", "")),
    "protocol": frozenset(("2",)),
    "encoding": frozenset(("utf-8", "utf8")),
    "encoding_errors": frozenset(("strict",)),
    **dict.fromkeys(
        (
            *("cache", "cache_config", "command_packer", "connection_class", "credential_provider", "driver_info"),
            *("event_dispatcher", "legacy_responses", "maint_notifications_config", "parser_class", "queue_class"),
            *("redis_connect_func", "retry", "retry_on_error"),
        ),
        frozenset[str](),
    ),
}
_CERTIFICATE_CHECKS = {"required", "optional", "none"}


class Address(msgspec.Struct, frozen=True, kw_only=True):
    """The address of a Redis, of the Sentinels that know the primary, or of nodes of a Redis Cluster."""

    #: The URL for redis-py. With Sentinels or nodes, its host and port are those of the first.
    url: str
    #: Host and port of each node of a Redis Cluster that the URL names.
    nodes: tuple[tuple[str, int], ...] = ()
    #: Host and port of each Sentinel.
    sentinels: tuple[tuple[str, int], ...] = ()
    #: The name under which the Sentinels know the primary.
    master_name: str = ""
    #: User and password of the Sentinels.
    sentinel_login: Mapping[str, str] = {}

    @property
    def location(self) -> str:
        """Host and port, or the path of the socket, for messages. It holds no secret."""
        parts = urlsplit(self.url)
        hosts = ", ".join(f"{host}:{port}" for host, port in self.sentinels or self.nodes)
        if self.sentinels:
            return f"{self.master_name} (by Sentinel: {hosts})"
        if self.nodes:
            return f"a cluster ({hosts})"
        return parts.path if parts.scheme == "unix" else f"{parts.hostname or 'localhost'}:{parts.port or _PORT}"

    @property
    def option_names(self) -> list[str]:
        """The options in the URL, without their values."""
        return list(dict(parse_qsl(urlsplit(self.url).query)))

    @property
    def options(self) -> dict[str, Any]:
        """The URL as arguments of redis-py's connections. Raises ValueError for an invalid option."""
        return dict(parse_url(self.url))  # type: ignore[no-untyped-call]  # redis-py has no type for it

    @property
    def tls(self) -> dict[str, Any] | None:
        """The options of TLS, `ssl_cert_reqs` always among them; None without TLS."""
        if urlsplit(self.url).scheme != "rediss":
            return None
        options = {name: value for name, value in self.options.items() if name.startswith("ssl_")}
        return {"ssl_cert_reqs": "required", **options}

    @property
    def celery_url(self) -> str:
        """The address as a URL for kombu and Celery, which take TLS options and `master_name` as settings."""
        parts, options = urlsplit(self.url), self.options
        user, password = (quote(options.get(name) or "", safe="") for name in ("username", "password"))
        login = f"{user}:{password}@" if user or password else ""
        database = options.get("db", 0)
        if self.sentinels:
            # kombu tries one complete URL after the other.
            hosts = [f"{_bracket_ipv6(host)}:{port}" for host, port in self.sentinels]
            return ";".join(f"sentinel://{login}{host}/{database}" for host in hosts)
        if parts.scheme == "unix":
            return f"redis+socket://{login}{quote(options['path'])}?virtual_host={database}"
        host, port = options.get("host", "localhost"), options.get("port", _PORT)
        return f"{parts.scheme}://{login}{_bracket_ipv6(host)}:{port}/{database}"


def _bracket_ipv6(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def parse_address(url: str) -> Address:
    """Return the address in a URL. Raises SettingError, which shows only the scheme and options of the URL."""
    if not isinstance(url, str):
        raise SettingError(f"the Redis URL must be a text, got a {type(url).__name__}")
    try:
        url.encode()
    except UnicodeEncodeError:
        raise SettingError("the Redis URL is not UTF-8; in a password, write such bytes as %FF") from None
    cleaned = clean_url(url)
    if cleaned.startswith("sentinel:"):
        return _parse_sentinel_address([clean_url(single) for single in cleaned.strip(";").split(";")])
    if cleaned.startswith("cluster:"):
        return _parse_cluster_address(cleaned)
    _check_url(cleaned)
    return Address(url=_with_options(cleaned))


def clean_url(url: str) -> str:
    """Return one URL as redis-py reads it.

    Blanks and quotes around it are removed, the scheme is in small letters, brackets in a password are quoted, and
    Celery's form of a socket is redis-py's.
    """
    scheme, separator, rest = url.strip(BLANKS_AND_QUOTES).partition("://")
    scheme = scheme.lower()
    end = next((index for index, letter in enumerate(rest) if letter in "/?#"), len(rest))
    login, at_sign, host = rest[:end].rpartition("@")
    login = login.replace("[", "%5B").replace("]", "%5D")
    rest = login + at_sign + host + rest[end:]
    if scheme == "redis+socket":
        path, question_mark, options = rest.partition("?")
        scheme, rest = "unix", path + question_mark + options.replace("virtual_host=", "db=")
    return scheme + separator + rest


def _with_options(url: str) -> str:
    """Return the URL with its options as redis-py takes them. Raises SettingError for unusable ones."""
    location, _, query = url.partition("?")
    options = _parse_options(query, tls=url.startswith("rediss:"))
    return f"{location}?{urlencode(options)}" if options else location


def _parse_options(query: str, *, tls: bool) -> dict[str, str]:
    options = dict(parse_qsl(query, keep_blank_values=True))
    for name, harmless in _OWN_OPTIONS.items():
        value = options.pop(name, None)
        if value is not None and value.lower() not in harmless:
            raise SettingError(f"the Redis URL sets {name}, which Headrace sets itself; remove it")
    if not tls and (names := sorted(name for name in options if name.startswith("ssl_"))):
        raise SettingError(f"the Redis URL has {names[0]} without TLS; write rediss://, or remove the option")
    if "ssl_cert_reqs" in options:
        value = options["ssl_cert_reqs"].lower().removeprefix("cert_")
        if value not in _CERTIFICATE_CHECKS:
            raise SettingError(
                "ssl_cert_reqs in the Redis URL is CERT_REQUIRED, CERT_OPTIONAL or CERT_NONE, as Celery writes "
                "it, or required, optional or none"
            )
        options["ssl_cert_reqs"] = value
    return options


def describe_server(settings: Settings) -> str:
    """Return the server for messages: host and port, the path of the socket, or the name and its Sentinels."""
    return parse_address(settings.redis_url).location


@contextmanager
def explain_bad_options(address: Address) -> Iterator[None]:
    """Turn redis-py's errors about options of the URL into SettingError."""
    try:
        yield
    except SettingError:
        raise
    except (TypeError, ValueError, RedisError):
        raise SettingError(
            "the Redis URL has an option redis-py does not take, among "
            f"{', '.join(address.option_names)}; redis.Redis lists those it does"
        ) from None


def _parse_sentinel_address(urls: list[str]) -> Address:
    for url in urls:
        if not url.startswith("sentinel://") or "," in url.rpartition("@")[2].partition("?")[0]:
            raise SettingError(
                "each Sentinel is written out: sentinel://HOST1:26379;sentinel://HOST2:26379/0?master_name=NAME"
            )
        _check_url(url)
    first, last = urlsplit(urls[0]), urlsplit(urls[-1])
    options = dict(parse_qsl(last.query))
    has_tls = any(option.startswith("ssl_") for option in options)
    options = _parse_options(last.query, tls=has_tls)
    name = options.pop("master_name", "")
    if not name:
        raise SettingError(
            "the Redis URL names Sentinels but not their primary; end it in ?master_name=NAME, the name in "
            "`sentinel monitor NAME ...`"
        )
    login = {
        option: options.pop(f"sentinel_{option}")
        for option in ("username", "password")
        if f"sentinel_{option}" in options
    }
    return Address(
        url=first._replace(
            scheme="rediss" if has_tls else "redis", path=last.path, query=urlencode(options)
        ).geturl(),
        sentinels=tuple(_sentinel_hosts(urls)),
        master_name=name,
        sentinel_login=login,
    )


def _sentinel_hosts(urls: list[str]) -> Iterator[tuple[str, int]]:
    for url in urls:
        parts = urlsplit(url)
        yield parts.hostname or "localhost", parts.port or _SENTINEL_PORT


def _parse_cluster_address(url: str) -> Address:
    if ";" in url.rpartition("@")[2]:
        raise SettingError("the nodes of a cluster are written with commas: cluster://HOST1:6379,HOST2:6379")
    location, question_mark, query = url.removeprefix("cluster://").partition("?")
    login, at_sign, hosts = location.rpartition("@")
    hosts, _, database = hosts.partition("/")
    urls = [
        f"cluster://{login}{at_sign}{host.strip()}{question_mark}{query}"
        for host in hosts.split(",")
        if host.strip()
    ]
    if not urls:
        raise SettingError("the Redis URL names no node of the cluster; write cluster://HOST1:6379,HOST2:6379")
    for node in urls:
        _check_url(node)
    options = dict(parse_qsl(query))
    if database.strip("/") not in {"", "0"} or options.get("db", "0") != "0":
        raise SettingError("a Redis Cluster has only the database 0; remove the other number from the Redis URL")
    has_tls = any(option.startswith("ssl_") for option in options)
    first = urlsplit(urls[0])
    return Address(
        url=first._replace(
            scheme="rediss" if has_tls else "redis",
            path="/0",
            query=urlencode(_parse_options(query, tls=has_tls)),
        ).geturl(),
        nodes=tuple((parts.hostname or "localhost", parts.port or _PORT) for parts in map(urlsplit, urls)),
    )


def check_cluster_prefix(prefix: str) -> None:
    """Check that a key prefix puts all keys into one slot of a cluster. Raises SettingError."""
    if not has_hash_tag(prefix):
        raise SettingError(
            f"HEADRACE_KEY_PREFIX is {prefix!r}, and in a Redis Cluster it needs a hash tag, which puts all keys "
            "into one slot; write it in braces, for example {shop}:, or leave it out for {headrace}:"
        )


def _check_url(url: str) -> None:
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise SettingError(
            "the Redis URL has no usable host and port; in a password, write / as %2F, # as %23, @ as %40, and an "
            "IPv6 address in brackets"
        ) from None
    if parts.scheme not in _SCHEMES:
        raise SettingError(
            "the Redis URL must begin with redis://, rediss:// (TLS), unix://, sentinel:// or cluster://, not "
            f"{parts.scheme[:20]!r}"
        )
    if parts.fragment or "@" in parts.path + parts.query:
        raise SettingError("the Redis URL has a '#' or '@' where none belongs; in a password, write %23 and %40")
    if parts.scheme == "unix" and not parts.path:
        raise SettingError("the Redis URL names no socket; write unix:///path/to/redis.sock?db=0")
    database = parts.path.strip("/") if parts.scheme != "unix" else dict(parse_qsl(parts.query)).get("db", "")
    if database and not (database.isascii() and database.isdigit()):
        raise SettingError(
            "the Redis URL does not end in a database number; write redis://HOST:6379/0, and in a "
            "password / as %2F, # as %23, @ as %40"
        )
    if parts.scheme != "unix" and not host and parts.netloc:
        raise SettingError("the Redis URL has no host; write redis://HOST:6379/0")
