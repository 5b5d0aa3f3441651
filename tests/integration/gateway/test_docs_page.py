"""The page of the API in a real browser: its curl lines work, and so does trying a request."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, expect, sync_playwright

from tests.support.command import headrace
from tests.support.gateway import RunningGateway, running_gateway
from tests.support.served_worker import Site

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="no chromium on PATH; on Debian: apt-get install chromium"
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page, which must write nothing to the console: neither an error, nor what its policy has blocked."""
    messages: list[str] = []

    def note(message: ConsoleMessage) -> None:
        if "responded with a status of 4" not in message.text:  # the page shows the answer
            messages.append(message.text)

    context = browser.new_context(viewport={"width": 700, "height": 900})
    page = context.new_page()
    page.on("console", note)
    page.on("pageerror", lambda error: messages.append(str(error)))
    yield page
    context.close()
    assert messages == []


@pytest.fixture(scope="module")
def keyed(shared: Site) -> Iterator[RunningGateway]:
    with running_gateway(shared.url, shared.folder, name="keyed", HEADRACE_GATEWAY_OPEN="false") as gateway:
        yield gateway


def open_model(page: Page, url: str, model: str) -> None:
    """Open the page, and the section of a model in it."""
    page.goto(f"{url}/docs")
    section = page.locator(f"#model-{model}")
    expect(section).to_be_visible()
    if section.get_attribute("open") is None:
        section.locator("summary").click()
    expect(section.locator("textarea")).to_be_visible()


def test_the_curl_line_of_a_model_works_as_it_stands(page: Page, gateway: RunningGateway):
    open_model(page, gateway.url, "churn")
    line = page.locator("#model-churn .code pre").first.inner_text()
    completed = subprocess.run(["sh", "-c", f"{line} --silent"], capture_output=True, text=True, timeout=60)
    assert completed.returncode == 0, completed.stderr
    assert json.loads(completed.stdout)["model"] == "churn"


def test_a_request_is_sent_with_the_method_of_the_reader_and_its_answer_is_shown(
    page: Page, gateway: RunningGateway
):
    open_model(page, gateway.url, "churn")
    section = page.locator("#model-churn")
    section.get_by_label("Method").select_option("predict_proba")
    expect(section.locator(".code pre").first).to_contain_text('"method":"predict_proba"')
    section.get_by_role("button", name="Send").click()
    expect(section.locator(".good")).to_contain_text("200 OK")
    expect(section.locator("pre.answer")).to_contain_text('"predictions"')


def test_an_error_is_shown_as_the_gateway_answers_it(page: Page, gateway: RunningGateway):
    open_model(page, gateway.url, "doubling")
    section = page.locator("#model-doubling")
    section.get_by_label("Body").fill('{"instances": [[1]]}')
    with page.expect_response("**/v1/models/doubling:predict") as answer:
        section.get_by_role("button", name="Send").click()
    assert answer.value.status == 422
    expect(section.locator(".bad")).to_contain_text("422")
    expect(section.locator("pre.answer")).to_contain_text("/docs/problems/invalid-input")


def test_a_body_that_is_no_json_is_not_sent(page: Page, gateway: RunningGateway):
    open_model(page, gateway.url, "churn")
    section = page.locator("#model-churn")
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    section.get_by_label("Body").fill('{"instances": [')
    section.get_by_role("button", name="Send").click()
    expect(section.get_by_role("status")).to_contain_text("no JSON yet")
    assert requests == []


def test_a_key_shows_the_models_and_stays_in_the_page(page: Page, keyed: RunningGateway, shared: Site):
    key = headrace("keys", "add", "reader", "--models", "churn", HEADRACE_REDIS_URL=shared.url).stdout.strip()
    page.goto(f"{keyed.url}/docs")
    expect(page.locator("#message")).to_contain_text("Enter your API key")
    page.get_by_label("API key").fill("hr_wrong")
    page.get_by_role("button", name="Use this key").click()
    expect(page.locator("#message")).to_contain_text("does not know this key")
    page.get_by_label("API key").fill(key)
    page.get_by_role("button", name="Use this key").click()
    expect(page.locator("#model-churn")).to_be_visible()
    assert page.locator("#model-list details").count() == 1
    line = page.locator("#model-churn .code pre").first.inner_text()
    assert '-H "Authorization: Bearer $HEADRACE_API_KEY"' in line
    page.get_by_role("button", name="Send").click()
    expect(page.locator(".good")).to_contain_text("200 OK")
    assert key not in page.content()
    assert page.evaluate("[localStorage.length, sessionStorage.length, document.cookie]") == [0, 0, ""]
    page.reload()
    expect(page.locator("#message")).to_contain_text("Enter your API key")


def test_every_field_has_a_label_every_button_a_name_and_nothing_is_wider_than_the_page(
    page: Page, gateway: RunningGateway
):
    open_model(page, gateway.url, "tumour")
    unnamed = page.evaluate(
        """[...document.querySelectorAll("input, select, textarea")].filter((field) => !field.labels.length).length
        + [...document.querySelectorAll("button")].filter((button) => !button.textContent.trim()).length"""
    )
    assert unnamed == 0
    assert page.evaluate("document.documentElement.scrollWidth") <= 700
    assert page.evaluate("document.documentElement.lang") == "en"
    assert page.locator("h1").count() == 1


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_have_enough_contrast(browser: Browser, gateway: RunningGateway, scheme: str):
    context = browser.new_context(color_scheme=scheme)  # type: ignore[arg-type]
    page = context.new_page()
    page.goto(f"{gateway.url}/docs")
    expect(page.locator("#model-list details").first).to_be_visible()
    ratios = page.evaluate(
        """() => {
        const style = getComputedStyle(document.documentElement);
        const light = (name) => {
          const hex = style.getPropertyValue(name).trim().slice(1);
          const parts = [0, 2, 4].map((at) => parseInt(hex.slice(at, at + 2), 16) / 255)
            .map((value) => (value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4));
          return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2];
        };
        const ratio = (a, b) => (Math.max(light(a), light(b)) + 0.05) / (Math.min(light(a), light(b)) + 0.05);
        return [
          ...["--text", "--quiet", "--link", "--good", "--bad"].flatMap(
            (name) => [ratio(name, "--ground"), ratio(name, "--panel")]),
          ratio("--button", "--button-text"),
        ];
        }"""
    )
    context.close()
    assert len(ratios) == 11
    assert min(ratios) >= 4.5  # WCAG 2.2, level AA
