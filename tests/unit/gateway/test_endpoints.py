"""The operator's file of endpoints: what it may say, errors that name the line, and changes while it is used."""

from __future__ import annotations

import logging
import os

import pytest

from headrace.errors import SettingError
from headrace.wire.notice import NOTICE_STATUSES
from headrace_gateway.notify.endpoints import EndpointFile, is_loopback, parse_endpoints

SECRET = "whsec_YWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWE="
OTHER = "whsec_YmJiYmJiYmJiYmJiYmJiYmJiYmJiYmJiYmJiYmJiYmI="


def table(**values: str) -> str:
    defaults = {"url": '"https://orders.example/hook"', "secrets": f'["{SECRET}"]'}
    return "[orders]\n" + "".join(f"{name} = {value}\n" for name, value in (defaults | values).items() if value)


def test_an_endpoint_has_a_url_and_secrets_and_hears_of_every_outcome():
    (endpoint,) = parse_endpoints(table(), "file").values()
    assert endpoint.url == "https://orders.example/hook"
    assert endpoint.events == NOTICE_STATUSES
    assert (endpoint.full, endpoint.headers, len(endpoint.keys)) == (False, {}, 1)


def test_an_endpoint_may_choose_events_predictions_and_headers():
    text = table(events='["failure"]', full="true", headers='{ Authorization = "Bearer x" }')
    (endpoint,) = parse_endpoints(text, "file").values()
    assert (endpoint.events, endpoint.full, endpoint.headers) == (
        ("failure",),
        True,
        {"Authorization": "Bearer x"},
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("orders =", ["TOML", "end of document"]),
        ("orders = 3", ["[orders]"]),
        ('["a b"]\nurl = "x"', ["name of an endpoint"]),
        (table(secrets=""), ["[orders]", "secrets"]),
        (table(secrets="[]"), ["[orders]", "secrets"]),
        (table(url=""), ["[orders]", "url"]),
        (table(secret='"x"'), ["[orders]", "`secret`", "did you mean 'secrets'"]),
        (table(secrets='["whsec_c2hvcnQ="]'), ["[orders]", "secret 1", "headrace notify secret"]),
        (table(events='["done"]'), ["[orders]", "events"]),
        (table(url='"ftp://orders.example"'), ["[orders]", "https://"]),
        (table(url='"https://"'), ["[orders]", "https://"]),
        (table(url='"https://[::1/x"'), ["[orders]", "parsed"]),
        (table(url='"https://me:pass@orders.example/"'), ["[orders]", "headers"]),
        (table(url='"http://orders.example/hook"'), ["[orders]", "allow_http"]),
        (table(headers='{ webhook-id = "x" }'), ["[orders]", "webhook-id"]),
        (table(headers='{ Host = "x" }'), ["[orders]", "Host"]),
        (table(headers='{ X = "a\\r\\nB: c" }'), ["[orders]", "line break"]),
        (table(headers='{ X = "\udcff" }'), ["UTF-8"]),
        ("a = " + "[" * 5_000, ["nested too deeply"]),
    ],
)
def test_an_error_names_the_endpoint_and_the_field(text, words):
    with pytest.raises(SettingError) as caught:
        parse_endpoints(text, "the file")
    assert all(word in str(caught.value) for word in ["the file", *words])


@pytest.mark.parametrize(
    "text",
    [
        f'[orders]\nurl = "https://x/"\nsecrets = ["{SECRET}\n',
        table(secrets=f'["{SECRET[:-8]}!"]'),
        table(secrets=f'"{SECRET}"'),
        table(url=f'"http://orders.example/{SECRET}"'),
        table(url=f'"https://me:{SECRET}@orders.example/"'),
    ],
)
def test_an_error_quotes_no_secret(text):
    with pytest.raises(SettingError) as caught:
        parse_endpoints(text, "file")
    assert SECRET[6:20] not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "extra"),
    [
        ("http://127.0.0.1:8000/hook", {}),
        ("http://localhost/hook", {}),
        ("http://[::1]:8000/hook", {}),
        ("http://orders.internal/hook", {"allow_http": "true"}),
    ],
)
def test_http_is_for_this_machine_or_a_network_that_the_operator_trusts(url, extra):
    assert "orders" in parse_endpoints(table(url=f'"{url}"', **extra), "file")


@pytest.mark.parametrize("host", ["127.0.0.1.example", "localhost.example", "10.0.0.1", "0.0.0.0", "[::]"])
def test_other_hosts_are_not_this_machine(host):
    assert not is_loopback(host)


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "notify.toml"
    path.write_text(table())
    return path


def test_a_secret_is_rotated_while_the_file_is_used(path):
    endpoints = EndpointFile(str(path))
    path.write_text(table(secrets=f'["{OTHER}", "{SECRET}"]'))
    assert endpoints.current()["orders"].secrets == (OTHER, SECRET)


def test_a_file_is_replaced_as_kubernetes_replaces_a_mounted_secret(path, tmp_path):
    endpoints = EndpointFile(str(path))
    newer = tmp_path / "newer"
    newer.write_text(table(secrets=f'["{OTHER}"]'))
    os.utime(newer, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns))
    newer.replace(path)
    assert endpoints.current()["orders"].secrets == (OTHER,)


@pytest.mark.parametrize("change", ["broken", "gone"])
def test_a_change_that_cannot_be_used_is_logged_once_and_the_former_endpoints_stay(path, caplog, change):
    endpoints = EndpointFile(str(path))
    if change == "gone":
        path.unlink()
    else:
        path.write_text("[orders")
    with caplog.at_level(logging.ERROR):
        assert [list(endpoints.current()) for _ in range(3)] == [["orders"]] * 3
    assert len(caplog.records) == 1
    path.write_text(table(full="true"))
    assert endpoints.current()["orders"].full


def test_a_file_that_is_missing_at_the_start_is_an_error(tmp_path):
    with pytest.raises(SettingError, match="cannot be read"):
        EndpointFile(str(tmp_path / "none.toml"))


def test_the_text_itself_may_be_the_setting():
    assert list(EndpointFile(table()).current()) == ["orders"]


def test_without_the_setting_there_are_no_endpoints():
    assert EndpointFile("").current() == {}
