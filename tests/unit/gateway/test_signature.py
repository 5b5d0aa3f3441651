"""Requests are signed so that the receiver's own library accepts them, and no other body, id, time or secret."""

from __future__ import annotations

import base64
import os
import time

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from headrace_gateway.notify.signature import decode_secret, sign

OLD, NEW, OTHER = (f"whsec_{base64.b64encode(os.urandom(32)).decode()}" for _ in range(3))
BODY = b'{"type":"job.success","data":{"id":"a","plan":"Z\xc3\xbcrich"}}'


def signed(*secrets: str, timestamp: int | None = None) -> dict[str, str]:
    moment = int(time.time()) if timestamp is None else timestamp
    return sign("job-1.success", moment, BODY, [decode_secret(secret) for secret in secrets])


def test_the_receivers_library_verifies_a_request():
    assert Webhook(NEW).verify(BODY, signed(NEW))["type"] == "job.success"


@pytest.mark.parametrize("secret", [OLD, NEW], ids=["old", "new"])
def test_during_a_rotation_the_old_and_the_new_secret_verify(secret):
    headers = signed(NEW, OLD)
    assert len(headers["webhook-signature"].split()) == 2
    Webhook(secret).verify(BODY, headers)


def test_another_secret_does_not_verify():
    with pytest.raises(WebhookVerificationError):
        Webhook(OTHER).verify(BODY, signed(NEW, OLD))


@pytest.mark.parametrize(
    "change",
    [{"webhook-id": "job-2.success"}, {"webhook-timestamp": str(int(time.time()) - 1)}],
    ids=["id", "time"],
)
def test_a_changed_header_does_not_verify(change):
    with pytest.raises(WebhookVerificationError):
        Webhook(NEW).verify(BODY, signed(NEW) | change)


def test_a_changed_body_does_not_verify():
    with pytest.raises(WebhookVerificationError):
        Webhook(NEW).verify(BODY + b" ", signed(NEW))


def test_a_request_recorded_ten_minutes_ago_does_not_verify():
    with pytest.raises(WebhookVerificationError):
        Webhook(NEW).verify(BODY, signed(NEW, timestamp=int(time.time()) - 600))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "secret",
        "whsec_",
        "whsec_!!!!",
        f"whsec_{base64.b64encode(bytes(23)).decode()}",
        f"whsec_{base64.b64encode(bytes(65)).decode()}",
    ],
    ids=["empty", "no prefix", "no key", "no base64", "too short", "too long"],
)
def test_a_weak_or_malformed_secret_is_refused_without_quoting_it(text):
    with pytest.raises(ValueError, match="a secret") as caught:
        decode_secret(text)
    assert text.removeprefix("whsec_") not in str(caught.value) or len(text) <= len("whsec_")
