"""Events of jobs in a browser's EventSource, across lost connections and restarts of the gateway."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, sync_playwright

from headrace import Client
from tests.support import ROOT
from tests.support.connections import free_port
from tests.support.gateway import running_gateway
from tests.support.served_worker import Site, client

__all__ = ["client"]  # fixtures

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="no chromium on PATH; on Debian: apt-get install chromium"
)
HOW_TO = (ROOT / "docs/how-to/follow-jobs-in-a-browser.md").read_text()
SCRIPT = "\n".join(
    text for text in re.findall(r"^```js\n(.*?)^```", HOW_TO, re.M | re.S) if "new EventSource" in text
)


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    """A page of a browser."""
    with sync_playwright() as playwright:
        arguments = ["--no-sandbox", "--disable-dev-shm-usage"]
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield browser.new_page()
        browser.close()


def open_page(page: Page, url: str) -> None:
    """Open a page of the gateway's own origin, with the functions of the how-to and the list `jobs`."""
    body = f"<script>{SCRIPT}\nconst jobs = [];</script>"
    page.route(f"{url}/page", lambda route: route.fulfill(body=body, content_type="text/html"))
    page.goto(f"{url}/page")


def test_a_page_follows_a_job_through_a_restart_of_the_gateway_and_stops_after_its_outcome(
    page: Page, client: Client, shared: Site, tmp_path: Path
) -> None:
    port = str(free_port())
    job = client.submit("doubling", [4, 0, 0], delay=600)
    with running_gateway(shared.url, tmp_path, HEADRACE_GATEWAY_PORT=port) as gateway:
        open_page(page, gateway.url)
        page.evaluate(f"source = follow('{job.id}', (job) => jobs.push(job.status))")
        page.wait_for_function("jobs.length == 1")
    with running_gateway(shared.url, tmp_path, name="next", HEADRACE_GATEWAY_PORT=port):
        page.wait_for_function("source.readyState == EventSource.OPEN", timeout=30_000)
        assert job.cancel()
        page.wait_for_function("source.readyState == EventSource.CLOSED", timeout=30_000)
    assert page.evaluate("jobs") == ["waiting", "cancelled"]


def test_a_page_gets_each_of_many_outcomes_once_though_the_gateway_is_restarted_meanwhile(
    page: Page, client: Client, shared: Site, tmp_path: Path
) -> None:
    port = str(free_port())
    early = [job.id for job in client.submit_many("doubling", shared.rows(50))]
    late = client.submit("doubling", [4, 0, 0], delay=600)
    with running_gateway(shared.url, tmp_path, HEADRACE_GATEWAY_PORT=port) as gateway:
        open_page(page, gateway.url)
        page.evaluate("ids => { source = followAll(ids, (job) => jobs.push(job.id)) }", [*early, late.id])
        page.wait_for_function("jobs.length == 50")
    with running_gateway(shared.url, tmp_path, name="next", HEADRACE_GATEWAY_PORT=port):
        page.wait_for_function("source.readyState == EventSource.OPEN", timeout=30_000)
        assert late.cancel()
        page.wait_for_function("source.readyState == EventSource.CLOSED", timeout=30_000)
    received = page.evaluate("jobs")
    assert sorted(received[:50]) == sorted(early)
    assert received[50:] == [late.id]
