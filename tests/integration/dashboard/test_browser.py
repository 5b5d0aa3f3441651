"""The pages that Headrace adds to Flower in a real browser, with a real worker.

SCREENSHOTS=docs/images makes the screenshots of the documentation.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import redis
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from headrace import Client
from headrace.catalog.aliases import CANARY, PRODUCTION, SHADOW, Alias, decode_aliases, encode_alias, move_alias
from headrace.catalog.contract import Array, Contract, Output
from headrace.catalog.published import publish_contract
from headrace.catalog.workers import publish_status
from headrace.connection.commands import execute
from headrace.wire.keys import Keys
from headrace_worker.local.embedded_redis import EmbeddedRedis
from headrace_worker.local.stack import Child, start_flower, start_worker
from headrace_worker.rollout.version_stats import VersionStats, add_command
from headrace_worker.store.store import Store
from tests.support import hostile_models
from tests.support.stored_dead_letters import make_letter, store_letter
from tests.support.stored_runs import store_run
from tests.support.waiting import wait_until

USER, PASSWORD = "ann", "s3cret"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="no chromium on PATH; on Debian: apt-get install chromium"
)


class Site(NamedTuple):
    """A running Flower that allows actions, with a worker."""

    url: str
    redis_url: str
    redis: redis.Redis


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("stack")
    hostile_models.add(Store(folder / "models"))
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    children: list[Child] = []
    settings = {
        "HEADRACE_FLOWER_LOGIN": f"{USER}:{PASSWORD}",
        "HEADRACE_FLOWER_OPEN": "false",
        "HEADRACE_FLOWER_ACTIONS": "true",
    }
    with EmbeddedRedis("--appendfsync", "no") as server, redis.Redis.from_url(server.url) as client:
        try:
            children.append(start_flower(server.url, folder, port=port, **settings))
            serving = hostile_models.SERVING
            children.append(start_worker(server.url, folder / "models", folder, concurrency=1, **serving))
            yield Site(f"http://127.0.0.1:{port}", server.url, client)
        finally:
            for child in reversed(children):
                child.stop()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        arguments = ["--no-sandbox", "--disable-dev-shm-usage"]
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield browser
        browser.close()


@pytest.fixture
def context(browser: Browser, site: Site) -> Iterator[BrowserContext]:
    """Open a browser context with the login."""
    context = browser.new_context(
        base_url=site.url,
        viewport={"width": 1360, "height": 640},
        http_credentials={"username": USER, "password": PASSWORD},
    )
    yield context
    context.close()


@pytest.fixture
def page(context: BrowserContext) -> Iterator[Page]:
    """Open a page; fail the test if one of its scripts fails or an answer is a server error."""
    page, errors = context.new_page(), []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("response", lambda response: errors.append(response.url) if response.status >= 500 else None)
    yield page
    assert errors == []


def save_screenshot(page: Page, name: str) -> None:
    """Write a screenshot to the folder SCREENSHOTS, where it is set."""
    if folder := os.environ.get("SCREENSHOTS"):
        page.screenshot(path=Path(folder) / f"{name}.png", animations="disabled")


def fits(page: Page) -> bool:
    """Return True if every table of the page is fully visible without scrolling sideways."""
    fits = "Array.from(document.querySelectorAll('figure')).every(table => table.scrollWidth <= table.clientWidth)"
    return bool(page.evaluate(fits))


def run_failing_jobs(site: Site, count: int = 3) -> list[str]:
    """Run jobs that fail for good; return their ids."""
    with Client(site.redis_url, check=False) as client:
        jobs = [client.submit("obedient", hostile_models.instance("raise")) for _ in range(count)]
        for job in jobs:
            job.outcome(timeout=20)
        return [job.id for job in jobs]


def purge_all(site: Site) -> None:
    with Client(site.redis_url) as client:
        client.dead_letters.purge(every=True)


def test_a_wrong_password_is_refused(browser: Browser, site: Site):
    context = browser.new_context(base_url=site.url, http_credentials={"username": USER, "password": "wrong"})
    response = context.new_page().goto("/dead-letters")
    assert response is not None
    assert response.status == 401
    context.close()


def test_the_navigation_leads_to_every_page(page: Page):
    page.goto("/")
    for name in ("Dead letters", "Models", "Queues", "Runs"):
        page.get_by_role("link", name=name, exact=True).click()
        page.wait_for_load_state()
        assert name in page.title()
        assert page.locator("nav .nav-link.active").inner_text() == name


def test_an_empty_list_says_that_there_are_no_dead_letters(page: Page, site: Site):
    purge_all(site)
    page.goto("/dead-letters")
    assert "No dead letters." in page.inner_text("#dead-letters-table")


def test_a_click_replays_a_dead_letter(page: Page, site: Site):
    purge_all(site)
    jobs = run_failing_jobs(site)
    page.goto("/dead-letters")
    expect(page.locator("#dead-letters-table tbody tr")).to_have_count(3)
    assert fits(page)
    save_screenshot(page, "flower-dead-letters")
    page.get_by_role("link", name=jobs[0]).click()
    assert "ValueError" in page.inner_text("#main-content")
    assert fits(page)
    page.get_by_role("button", name="Replay").click()
    assert "1 replayed." in page.inner_text("#done")
    with Client(site.redis_url) as client:  # the replayed job fails once more
        wait_until(lambda: client.dead_letters.count().letters == 3)
        assert [attempt.cause for attempt in client.dead_letters.show(jobs[0]).attempts] == ["replay"]


def test_selected_dead_letters_are_purged_after_a_confirmation(page: Page, site: Site):
    purge_all(site)
    jobs = run_failing_jobs(site)
    page.goto("/dead-letters")
    page.get_by_label("Select all on this page").check()
    page.get_by_label(f"Select {jobs[1]}").uncheck()
    page.once("dialog", lambda dialog: dialog.dismiss())
    page.get_by_role("button", name="Purge selected").click()
    expect(page.locator("#dead-letters-table tbody tr")).to_have_count(3)
    page.once("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name="Purge selected").click()
    page.wait_for_selector("#done")
    assert "2 purged." in page.inner_text("#done")
    expect(page.locator("#dead-letters-table tbody tr")).to_have_count(1)


def test_long_names_do_not_widen_the_table(page: Page, site: Site):
    purge_all(site)
    store_letter(
        site.redis, make_letter("i" * 70, model="model-of-a-name-" * 3, error="E" * 60, message="m" * 400)
    )
    store_letter(site.redis, make_letter("short"))
    page.goto("/dead-letters")
    assert fits(page)
    for row in page.locator("#dead-letters-table tbody tr").all():
        box = row.bounding_box()
        assert box is not None
        assert box["height"] < 120
    purge_all(site)


def test_the_list_of_dead_letters_is_filtered(page: Page, site: Site):
    purge_all(site)
    run_failing_jobs(site)
    page.goto("/dead-letters")
    page.get_by_label("Model", exact=True).fill("other")
    page.get_by_role("button", name="Filter").click()
    expect(page.locator("#dead-letters-table")).to_contain_text("No dead letter matches.")
    page.get_by_label("Model", exact=True).fill("obedient")
    page.get_by_label("Reason").select_option("permanent")
    page.get_by_role("button", name="Filter").click()
    expect(page.locator("#dead-letters-table tbody tr")).to_have_count(3)


def test_the_models_and_queues_pages_in_dark_and_light_themes(page: Page, site: Site):
    site.redis.hset(Keys().aliases("obedient"), PRODUCTION, encode_alias(Alias(version="1")))
    run_failing_jobs(site)
    array, methods = Array(shape=(2,)), {"predict": Output(shape=())}
    for model, version in (("churn", "3"), ("churn", "4"), ("fraud", "7")):
        publish_contract(site.redis, Keys(), Contract(model=model, version=version, input=array, methods=methods))
    site.redis.hset(Keys().aliases("churn"), PRODUCTION, encode_alias(Alias(version="3")))
    site.redis.hset(Keys().aliases("churn"), CANARY, encode_alias(Alias(version="4", share=0.1)))
    store_stats(site, "3", 9012, failed=4, milliseconds=1.1)
    store_stats(site, "4", 988, failed=1, milliseconds=1.3)
    refused, runtimes = {"5": "churn@5 fails on its example: KeyError"}, {"3": "treelite", "4": "onnx"}
    for worker in ("worker@pod-7", "worker@pod-8"):
        execute(site.redis, publish_status(Keys(), "churn", worker, ["3", "4"], refused, runtimes=runtimes))
    with Client(site.redis_url) as client:  # no worker serves the model fraud
        client.submit_many("fraud", [[1, 2]] * 12)
        client.submit_many("fraud", [[1, 2]] * 400, priority=9)
        client.submit_many("obedient", [hostile_models.instance()] * 40)
    page.goto("/models")
    page.wait_for_function("document.body.innerText.includes('worker@')")
    page.get_by_role("button", name=re.compile("Select theme")).click()
    page.get_by_role("button", name="Dark").click()
    assert page.locator("html").get_attribute("data-bs-theme") == "dark"
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != "rgb(255, 255, 255)"
    page.mouse.move(600, 700)
    row = page.locator("#models-table tbody tr", has_text="obedient").locator("td").all_inner_texts()
    assert row[:3] == ["obedient", "1", "sklearn"]
    assert fits(page)
    save_screenshot(page, "flower-models")
    page.goto("/queues")
    assert page.locator("html").get_attribute("data-bs-theme") == "dark"
    assert "predict.obedient" in page.inner_text("#queues-table")
    assert "no job finishes" in page.inner_text("#queues-table")
    assert "12 / 0 / 0 / 400" in page.inner_text("#queues-table")
    assert fits(page)
    page.evaluate("localStorage.setItem('flower-theme', 'light')")
    page.goto("/queues")
    save_screenshot(page, "flower-queues")
    site.redis.delete(Keys().aliases("obedient"), Keys().aliases("churn"))


def test_the_tasks_page_has_columns_for_model_version_instances_attempts_and_wait(page: Page, site: Site):
    with Client(site.redis_url, check=False) as client:
        job = client.submit("obedient", hostile_models.instance())
        job.result(timeout=20)
    cells: list[str] = []

    def job_is_shown() -> bool:
        page.goto("/tasks")
        page.wait_for_selector("#tasks-table tbody tr")
        row = page.locator("#tasks-table tbody tr", has_text=job.id[:8]).filter(has_text=job.id)
        cells[:] = row.first.locator("td").all_inner_texts() if row.count() else []
        return bool(cells) and cells[4] == "SUCCESS"

    wait_until(job_is_shown)
    assert cells[1:6] == ["obedient", "1", "1", "SUCCESS", "1"]
    page.set_viewport_size({"width": 1560, "height": 640})
    assert re.fullmatch(r"\d+\sms|\d+\.\d\ss", cells[7])
    save_screenshot(page, "flower-tasks")


def test_the_workers_page_is_not_cut_in_a_narrow_window(page: Page):
    page.set_viewport_size({"width": 700, "height": 640})
    page.goto("/workers")
    table = page.locator("#workers-table")
    expect(table.locator("tbody tr").first).to_be_visible()
    expect(table.locator("tbody .load-average")).to_have_count(0)
    widths = table.evaluate("table => [table.scrollWidth, table.parentElement.clientWidth]")
    assert widths[0] <= widths[1]
    page.set_viewport_size({"width": 1400, "height": 640})
    expect(table.locator("tbody .load-average")).to_be_visible()


def store_runs(site: Site) -> None:
    """Store a run in each state, one of them with failures, and the dead letter of its failed chunk."""
    for name in site.redis.zrange(Keys().runs, 0, -1):
        site.redis.delete(Keys().run(name.decode()), Keys().receipts(name.decode()))
    site.redis.delete(Keys().runs)
    now_ms = site.redis.time()[0] * 1000
    half = {"chunks": 96, "chunks_done": 41, "rows": 960_000, "rows_done": 410_000, "version": "3"}
    store_run(
        site.redis, "monthly-2026-11", "success", model="fraud", age_seconds=9000, **{**half, "chunks_done": 96}
    )
    store_run(site.redis, "weekly-48", "cancelled", model="fraud", age_seconds=8000, **half)
    failed = {"rows_failed": 1212, "chunks_failed": 1, "error": "1 of 96 chunks failed", "reason:bad input": 1212}
    store_run(
        site.redis, "nightly-28", "failure", age_seconds=5000, started_ms=now_ms - 5_000_000, **half, **failed
    )
    failure = '{"job":"nightly-28:7","reason":"permanent","message":"in:2026-11/28.parquet has changed"}'
    site.redis.hset(Keys().receipts("nightly-28"), "!7", failure)
    store_letter(
        site.redis, make_letter("nightly-28:7", queue="bulk.churn", message="in:2026-11/28.parquet has changed")
    )
    store_run(site.redis, "nightly-29", age_seconds=70, started_ms=now_ms - 65_000, rows_failed=12, **half)
    store_run(site.redis, "n" * 64, "planning", model="model-of-a-name-" * 4, age_seconds=5)


@pytest.mark.parametrize("width", [700, 1400])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_a_canary_is_promoted_after_a_confirmation(page: Page, site: Site, width: int, theme: str):
    try_canary(site)
    page.add_init_script(f"localStorage.setItem('flower-theme', '{theme}')")
    page.set_viewport_size({"width": width, "height": 900})
    page.goto("/models")
    table = page.get_by_label("Versions of churn beside production")
    expect(table).to_contain_text("good")
    expect(table).to_contain_text("differs: 108 of 8,960 predictions")
    assert fits(page)
    save_screenshot(page, f"flower-canary-{theme}-{width}")
    table.get_by_role("link", name="churn").click()
    page.get_by_role("button", name="Promote").click()  # the browser asks for the reason
    assert page.evaluate("document.querySelector('[name=reason]').validity.valueMissing")
    page.get_by_label("Reason of the promotion").fill("fewer false alarms")
    page.once("dialog", lambda dialog: dialog.dismiss())
    page.get_by_role("button", name="Promote").click()
    assert aliases(site) == {"production": "2", "canary": "3", "shadow": "4"}
    assert fits(page)
    is_in_the_docs = (theme, width) == ("light", 1400)
    save_screenshot(page, "flower-model" if is_in_the_docs else f"flower-model-{theme}-{width}")
    page.once("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name="Promote").click()
    expect(page.locator("#done")).to_contain_text("run on churn@3")
    assert aliases(site) == {"production": "3", "shadow": "4"}
    page.get_by_label("Reason for shadow").fill("it costs too much")
    page.once("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name="End shadow").click()
    expect(page.locator("#changes-table")).to_contain_text("it costs too much")
    assert aliases(site) == {"production": "3"}
    assert fits(page)
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    site.redis.delete(Keys().aliases("churn"), Keys().alias_history("churn"))


def aliases(site: Site) -> dict[str, str]:
    stored = decode_aliases("churn", site.redis.hgetall(Keys().aliases("churn"))).by_name
    return {name: alias.version for name, alias in stored.items()}


def try_canary(site: Site) -> None:
    """Publish a model with a canary and a shadow beside production, and their statistics."""
    keys = Keys()
    site.redis.delete(keys.aliases("churn"), keys.alias_history("churn"))
    array, methods = Array(shape=(2,)), {"predict": Output(shape=())}
    for version in ("2", "3", "4"):
        publish_contract(site.redis, keys, Contract(model="churn", version=version, input=array, methods=methods))
    moved = {PRODUCTION: Alias(version="2"), CANARY: Alias(version="3", share=0.1), SHADOW: Alias(version="4")}
    for name, alias in moved.items():
        execute(site.redis, move_alias(keys, "churn", name, None, alias, by="ann@laptop", reason="release 48"))
    execute(site.redis, publish_status(keys, "churn", "worker@pod-7", ["2", "3", "4"], {}))
    store_stats(site, "2", 9012, failed=4, milliseconds=1.1)
    store_stats(site, "3", 988, failed=1, milliseconds=1.3)
    store_stats(site, "4", 8960, milliseconds=1.6, compared=8960, differing=108)


def store_stats(site: Site, version: str, jobs: int, *, milliseconds: float, **numbers: int) -> None:
    """Store the statistics of a version of churn, in place of its former ones."""
    stats = VersionStats(succeeded=jobs - numbers.get("failed", 0), **numbers)  # type: ignore[arg-type]  # counts
    stats.add_duration(milliseconds / 1000, jobs)
    site.redis.delete(Keys().version_stats("churn", version))
    execute(site.redis, add_command(Keys(), "churn", version, stats))


@pytest.mark.parametrize("width", [700, 1400])
def test_runs_are_readable_in_a_narrow_and_in_a_wide_window(page: Page, site: Site, width: int):
    store_runs(site)
    page.set_viewport_size({"width": width, "height": 700})
    page.goto("/runs")
    rows = page.locator("#runs-table tbody tr")
    expect(rows).to_have_count(5)
    save_screenshot(page, "flower-runs" if width == 1400 else f"flower-runs-{width}")
    assert fits(page)
    for row in rows.all():
        box = row.bounding_box()
        assert box is not None
        assert box["height"] < 150
    nightly = page.locator("#runs-table tbody tr", has_text="nightly-29")
    assert nightly.locator("[role=progressbar]").get_attribute("aria-valuenow") == "42"
    bar, frame = (nightly.locator(name).bounding_box() for name in (".progress-bar", ".progress"))
    assert bar is not None
    assert frame is not None
    assert bar["width"] / frame["width"] == pytest.approx(0.427, abs=0.02)
    page.get_by_role("link", name="nightly-28").click()
    page.wait_for_selector("#chunks-table")
    assert "permanent" in page.inner_text("#chunks-table")
    assert "1,212" in page.inner_text("#reasons-table")
    assert fits(page)
    save_screenshot(page, "flower-run" if width == 1400 else f"flower-run-{width}")
    page.get_by_role("link", name="nightly-28:7").click()
    page.wait_for_load_state()
    assert "Dead letter …tly-28:7" in page.title()
    purge_all(site)


def test_a_run_is_cancelled_and_resumed_after_a_confirmation(page: Page, site: Site):
    store_runs(site)
    page.goto("/runs/nightly-29")
    page.once("dialog", lambda dialog: dialog.dismiss())
    page.get_by_role("button", name="Cancel").click()
    assert site.redis.hget(Keys().run("nightly-29"), "state") == b"running"
    page.once("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator("#done")).to_contain_text("Cancelled.")
    assert site.redis.hget(Keys().run("nightly-29"), "state") == b"cancelled"
    page.once("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name="Resume").click()
    expect(page.locator("#done")).to_contain_text("Resumed.")
    assert site.redis.hget(Keys().run("nightly-29"), "round") == b"2"


def test_pages_fit_a_small_window(page: Page, site: Site):
    run_failing_jobs(site, 1)
    store_run(site.redis, "nightly", "failure", chunks=20, chunks_done=19, rows_done=190_000, chunks_failed=1)
    page.set_viewport_size({"width": 420, "height": 800})
    for path in ("/dead-letters", "/models", "/queues", "/runs", "/runs/nightly"):
        page.goto(path)
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), path


@pytest.mark.parametrize("width", [700, 1400])
def test_dead_letters_and_their_causes_are_not_cut(page: Page, site: Site, width: int):
    purge_all(site)
    jobs = run_failing_jobs(site)
    store_letter(
        site.redis, make_letter("i" * 70, model="model-of-a-name-" * 3, error="E" * 60, message="m" * 400)
    )
    page.set_viewport_size({"width": width, "height": 700})
    page.goto("/dead-letters")
    assert fits(page)
    page.get_by_role("link", name="By cause").click()
    expect(page.locator("#groups-table tbody tr")).to_have_count(2)
    assert fits(page)
    save_screenshot(page, "flower-causes" if width == 1400 else f"flower-causes-{width}")
    page.get_by_role("link", name=re.compile("Replay all 3")).click()
    page.once("dialog", lambda dialog: dialog.dismiss())
    page.get_by_role("button", name="Replay all 3").click()
    assert len(site.redis.hkeys(Keys().dead)) == 4
    page.get_by_role("button", name="Dry run").click()
    expect(page.locator("#state")).to_have_text("done")  # the page refreshes itself
    expect(page.locator("#replayed")).to_have_text("3")
    page.goto(f"/jobs/{jobs[0]}")
    assert "permanent: ValueError" in page.inner_text("#job-facts")
    assert fits(page)
    save_screenshot(page, "flower-job" if width == 1400 else f"flower-job-{width}")
    purge_all(site)


@pytest.mark.parametrize("width", [700, 1400])
def test_charts_show_the_last_hour_and_a_refresh_keeps_the_place(page: Page, site: Site, width: int):
    run_failing_jobs(site)
    page.set_viewport_size({"width": width, "height": 320})
    for path in ("/models", "/queues"):
        page.goto(path)
        charts = page.get_by_label("The last hour of obedient")
        expect(charts).to_be_visible()
        assert charts.get_by_role("img", name="Failed/min").locator("path").count() == 1
        assert fits(page)
    page.evaluate("window.scrollTo(0, 150)")
    position = page.evaluate("window.scrollY")
    assert position > 0
    page.evaluate("document.querySelector('.page-description').textContent = 'old'")
    expect(page.locator(".page-description")).not_to_have_text("old", timeout=45_000)  # it was replaced
    assert page.evaluate("window.scrollY") == position
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
