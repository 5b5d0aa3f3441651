"""The file, the commands and the receiver of docs/how-to/webhooks.md, used as the page says."""

from __future__ import annotations

import json
import re
import shlex
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import redis

from headrace_gateway.notify.endpoints import parse_endpoints
from headrace_gateway.notify.schedule import SCHEDULE
from headrace_gateway.notify.settings import NotifySettings
from tests.support import ROOT
from tests.support.command import headrace
from tests.support.connections import free_port
from tests.support.gateway import running_gateway
from tests.support.notify_site import Site, site
from tests.support.stored_notices import letter_of
from tests.support.waiting import wait_until
from tests.support.webhooks import SECRET, Answer, Receiver, endpoint

__all__ = ["site"]  # a fixture

PAGE = (ROOT / "docs" / "how-to" / "webhooks.md").read_text(encoding="utf-8")


def block(language: str) -> str:
    """Return the only code block of a language."""
    (text,) = re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    return str(text)


def test_the_file_of_endpoints_is_one_and_the_defaults_are_those_of_the_page():
    endpoints = parse_endpoints(block("toml"), "the page")
    assert list(endpoints) == ["orders", "reports"]
    assert (endpoints["orders"].full, endpoints["reports"].full) == (False, True)
    assert NotifySettings().notify_timeout == 15
    assert SCHEDULE == (0, 5, 300, 1800, 7200, 18_000, 36_000)


@contextmanager
def page_receiver(folder: Path) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Run the receiver of the page. Yield its URL and its process."""
    program, port = folder / "receiver.py", free_port()
    program.write_text(block("python"))
    environ = {"WEBHOOK_SECRET": SECRET, "PORT": str(port)}
    with subprocess.Popen([sys.executable, program], env=environ, stdout=subprocess.PIPE, text=True) as process:
        try:
            wait_until(lambda: _listens(port))
            yield f"http://127.0.0.1:{port}/headrace", process
        finally:
            process.terminate()


def _listens(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


def test_the_receiver_of_the_page_takes_a_notice_and_refuses_another_signature(site: Site):
    with page_receiver(site.folder) as (url, process):
        with site.notifier(endpoint(url)):
            site.end_jobs("a")
            wait_until(site.is_over)
        assert process.stdout is not None
        assert process.stdout.readline() == "job.success a {'order': 'a'}\n"
        headers = {"webhook-id": "a.success", "webhook-timestamp": "1", "webhook-signature": "v1,AAAA"}
        assert httpx.post(url, headers=headers, content=b"{}").status_code == 401


def test_the_body_of_the_page_has_the_form_of_a_request(site: Site):
    with Receiver() as receiver, site.notifier(endpoint(receiver.url)):
        site.end_jobs("a")
        wait_until(site.is_over)
    example, body = json.loads(block("json")), json.loads(receiver.requests[0].body)
    assert (list(body), list(body["data"])) == (list(example), list(example["data"]))


def test_the_commands_of_the_page_list_and_replay_the_dead_letters_of_notices(site: Site, server: redis.Redis):
    with Receiver(lambda *_: Answer(500)) as receiver:
        with site.notifier(endpoint(receiver.url), HEADRACE_NOTIFY_SCHEDULE="0"):
            site.end_jobs("a")
            wait_until(site.is_over)
        assert site.letter_ids() == {"a.success"}
        listing, replay = re.findall(r"^headrace (dead .*)$", PAGE, re.MULTILINE)
        assert "orders" in headrace(*shlex.split(listing), HEADRACE_REDIS_URL=site.url).stdout
        ran = headrace(*shlex.split(replay), "--yes", HEADRACE_REDIS_URL=site.url)
        assert ran.returncode == 0, ran.stderr
        assert site.letter_ids() == set()
        receiver.answer = lambda *_: Answer(204)
        with site.notifier(endpoint(receiver.url)):
            wait_until(site.is_over)
    assert receiver.ids == ["a.success", "a.success"]
    assert letter_of("a.success").queue in listing


def test_a_new_secret_can_be_used(site: Site):
    made = headrace("notify", "secret").stdout.strip()
    assert parse_endpoints(endpoint("https://orders.example/", secrets=[made]), "x")["orders"].keys


def test_a_gateway_takes_the_names_of_the_operator_and_refuses_any_other_and_any_url(site: Site):
    job = {"instances": [{"age": 41}], "model": "churn"}
    names = {"HEADRACE_GATEWAY_NOTIFY": "orders, reports"}
    with running_gateway(site.url, site.folder, **names) as gateway, gateway.client() as http:
        for name in ("nobody", "https://evil.example/", "orders, reports", ""):
            answer = http.put("/v1/jobs/a", json={**job, "notify": name})
            assert answer.status_code == 422, answer.text
            assert answer.json()["type"].endswith(("/unknown-endpoint", "/invalid-input"))
            assert not name or name not in answer.text
    assert not site.server.exists("headrace:notify:open")
