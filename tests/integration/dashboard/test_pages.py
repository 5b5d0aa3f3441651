"""The pages that Headrace adds to Flower: login, read-only mode, HTML escaping, replay and purge by form."""

from __future__ import annotations

import json
import re
import urllib.parse
from http.cookiejar import CookieJar
from pathlib import Path

import pytest

from headrace.catalog.aliases import CANARY, PRODUCTION, Alias, encode_alias
from headrace.catalog.contract import Array, Contract, Output
from headrace.catalog.published import publish_contract
from headrace.catalog.workers import publish_status
from headrace.connection.commands import execute
from headrace.wire.keys import Keys
from headrace_worker.local.stack import start_flower
from tests.support.connections import free_port
from tests.support.flower_site import Site
from tests.support.stored_dead_letters import (
    crashed_attempt,
    make_letter,
    store_letter,
    store_malformed,
    stored_ids,
)

HOSTILE = "<script>document.title = 'owned'</script>"
PAGES = (
    "/dead-letters",
    "/models",
    "/queues",
    "/runs",
    "/tasks",
    "/workers",
    "/metrics",
    "/api/dead-letters",
    "/api/charts",
)


def publish(site: Site, model: str = "churn", versions: tuple[str, ...] = ("1", "2")) -> None:
    for version in versions:
        contract = Contract(
            model=model, version=version, input=Array(shape=(2,)), methods={"predict": Output(shape=())}
        )
        publish_contract(site.redis, Keys(), contract)


@pytest.mark.parametrize("path", PAGES)
def test_no_page_answers_without_the_login(read_only: Site, path: str):
    assert read_only.request(path, login=None)[0] == 401
    assert read_only.request(path, login="ann:wrong")[0] == 401
    assert read_only.request(path)[0] == 200


@pytest.mark.parametrize("path", ["/dead-letters", "/models", "/queues", "/runs"])
def test_empty_pages_say_so(read_only: Site, path: str):
    status, page = read_only.request(path)
    assert status == 200
    assert "empty-table-message" in page


def test_dead_letters_are_listed_newest_first_and_can_be_filtered(read_only: Site):
    for number in range(60):
        error = "KeyError" if number % 2 else "ValueError"
        store_letter(
            read_only.redis,
            make_letter(f"job-{number:02}", error=error, model="churn" if number < 50 else "fraud"),
        )
    first = read_only.json("/api/dead-letters")
    assert [letter["id"] for letter in first["dead_letters"]][:2] == ["job-59", "job-58"]
    last = read_only.json(f"/api/dead-letters?start={first['next']}")
    assert [letter["id"] for letter in last["dead_letters"]] == [f"job-{number:02}" for number in range(9, -1, -1)]
    assert last["next"] is None
    fraud = read_only.json("/api/dead-letters?model=fraud&error=KeyError")
    assert [letter["id"] for letter in fraud["dead_letters"]] == [
        f"job-{number}" for number in (59, 57, 55, 53, 51)
    ]
    assert read_only.request("/dead-letters?reason=nonsense")[0] == 400


def test_a_dead_letter_page_shows_the_history_and_no_payload(read_only: Site):
    store_letter(
        read_only.redis,
        make_letter("a", attempts=(crashed_attempt(), crashed_attempt(cause="error:ConnectionResetError"))),
    )
    _, page = read_only.request("/dead-letters/a")
    assert "crash" in page
    assert "error:ConnectionResetError" in page
    assert "model.py, line 7" in page
    assert len(read_only.json("/api/dead-letters/a")["attempts"]) == 2
    assert "payload" not in read_only.json("/api/dead-letters/a")
    assert read_only.request("/dead-letters/none")[0] == 404
    assert "replayed, purged or dropped" in json.loads(read_only.request("/api/dead-letters/none")[1])["error"]


def test_values_from_redis_are_escaped_in_html(acting: Site):
    name = "x'\"><img src=x onerror=alert(1)>/%2e%2e"
    store_letter(
        acting.redis,
        make_letter(
            name,
            error=HOSTILE,
            message=HOSTILE,
            traceback=HOSTILE,
            worker=HOSTILE,
            model=HOSTILE,
            queue=HOSTILE,
            metadata={HOSTILE: HOSTILE},
            attempts=(crashed_attempt(cause=f"error:{HOSTILE}"),),
        ),
    )
    publish(acting, "churn")
    execute(acting.redis, publish_status(Keys(), "churn", HOSTILE, ["1"], {"2": HOSTILE}))
    acting.redis.hset(Keys().aliases("churn"), HOSTILE, encode_alias(Alias(version=HOSTILE)))
    for path in (
        "/dead-letters",
        f"/dead-letters/{urllib.parse.quote(name, safe='')}",
        f"/dead-letters?model={urllib.parse.quote(HOSTILE)}",
        "/models",
    ):
        status, page = acting.request(path)
        assert status == 200, path
        assert "document.title" in page, path
        assert HOSTILE not in page, path
        assert "<img src=x" not in page, path


def test_a_form_replays_and_purges(acting: Site):
    store_letter(acting.redis, make_letter("a"))
    store_letter(acting.redis, make_letter("b"))
    store_letter(acting.redis, make_letter("c"))
    malformed = store_malformed(acting.redis, b"no job")
    status, page = acting.submit_form(id=["a", malformed, "gone"], action="replay")
    assert status == 200
    assert all(text in page for text in ("1 replayed.", "1 unchanged", "1 no longer there"))
    assert acting.redis.llen(Keys().retried("predict.churn")[0]) == 1
    assert "1 purged." in acting.submit_form(id=["b"], action="purge")[1]
    assert stored_ids(acting.redis)["died"] == {b"c", malformed.encode()}


def test_an_invalid_form_is_refused_with_a_reason_and_changes_nothing(acting: Site):
    store_letter(acting.redis, make_letter("a"))
    for fields, reason in (
        ({"action": "replay"}, "select dead letters first"),
        ({"action": "burn", "id": "a"}, "replay or purge"),
        ({"action": "replay", "id": "a", "version": "x"}, "number as text"),
    ):
        status, page = acting.submit_form(**fields)
        assert (status, reason in page) == (400, True), page
    assert acting.submit_form(action="replay", id="a", version="9")[0] == 404  # the model has no version 9
    assert stored_ids(acting.redis)["died"] == {b"a"}


def test_a_form_of_another_site_is_refused(acting: Site):
    store_letter(acting.redis, make_letter("a"))
    form = {"id": "a", "action": "purge"}
    assert acting.request("/dead-letters", form=form)[0] == 403
    jar = CookieJar()
    _, page = acting.request("/dead-letters", jar=jar)
    form["_xsrf"] = re.search(r'name="_xsrf" value="([^"]+)"', page)[1]  # type: ignore[index]  # it is there
    headers = {"Sec-Fetch-Site": "cross-site"}
    assert acting.request("/dead-letters", form=form, jar=jar, headers=headers)[0] == 403
    assert stored_ids(acting.redis)["died"] == {b"a"}


def test_read_only_mode_shows_no_button_and_refuses_the_form(read_only: Site, acting: Site):
    store_letter(acting.redis, make_letter("a"))
    for path in ("/dead-letters", "/dead-letters/a"):
        assert 'name="action"' not in read_only.request(path)[1]
    jar = CookieJar()
    _, page = acting.request("/dead-letters", jar=jar)
    token = re.search(r'name="_xsrf" value="([^"]+)"', page)[1]  # type: ignore[index]  # it is there
    form = {"id": "a", "action": "purge", "_xsrf": token}
    status, page = read_only.request("/dead-letters", form=form, jar=jar)
    assert (status, "--allow-actions" in page) == (403, True)
    assert read_only.request("/api/worker/shutdown/w", form={})[0] == 403
    assert stored_ids(acting.redis)["died"] == {b"a"}


def test_flowers_api_refuses_to_show_results(read_only: Site):
    read_only.redis.set("celery-task-meta-a", b'{"status": "SUCCESS", "result": 42, "task_id": "a"}')
    status, body = read_only.request("/api/task/result/a")
    assert (status, "42" in body) == (403, False)


def test_the_models_page_shows_versions_aliases_and_worker_status(read_only: Site):
    publish(read_only, versions=("1", "2", "10"))
    read_only.redis.hset(Keys().aliases("churn"), PRODUCTION, encode_alias(Alias(version="2")))
    read_only.redis.hset(Keys().aliases("churn"), CANARY, encode_alias(Alias(version="10", share=0.1)))
    refused, runtimes = {"1": "its example fails"}, {"2": "sklearn", "10": "treelite"}
    execute(read_only.redis, publish_status(Keys(), "churn", "w1@host", ["2", "10"], refused, runtimes=runtimes))
    [model] = read_only.json("/api/models")["models"]
    assert model["versions"] == ["10", "2", "1"]
    assert model["loaded"]["w1@host"]["versions"] == ["2", "10"]
    assert model["refused"]["1"]["reason"] == "its example fails"
    assert model["runtimes"] == {"2": "sklearn", "10": "treelite"}
    _, page = read_only.request("/models")
    assert re.search(r"canary <[^>]*>10,</span></span> <[^>]*>10 % of jobs</span> <[^>]*>treelite", page)
    assert re.search(r"<td[^>]*>sklearn</td>", page)
    assert "its example fails" in page


def test_the_list_of_models_is_paged(read_only: Site):
    for number in range(60):
        publish(read_only, f"model-{number:02}", ("1",))
    first = read_only.json("/api/models")
    last = read_only.json(f"/api/models?start={first['next']}")
    assert [len(page["models"]) for page in (first, last)] == [50, 10]
    assert last["next"] is None


def test_the_queues_page_and_the_api_of_lengths_count_every_priority(read_only: Site):
    publish(read_only)
    for name, count in zip(Keys().lists("predict.churn"), (1, 2, 3, 4), strict=True):
        read_only.redis.rpush(name, *[b"{}"] * count)
    read_only.redis.zadd(Keys().delayed("predict.churn"), {b"{}": 4e12})
    [queue] = read_only.json("/api/queues")["queues"]
    assert (queue["waiting"], queue["delayed"], queue["leased"]) == (10, 1, 0)
    assert queue["by_priority"] == {"0": 1, "3": 2, "6": 3, "9": 4}
    assert queue["predicted_wait_seconds"] is None
    assert "no job finishes" in read_only.request("/queues")[1]
    read_only.redis.hset(Keys().paused, "churn", '{"by": "<ann>", "at_ms": 1000, "reason": "no features"}')
    [queue] = read_only.json("/api/queues")["queues"]
    assert queue["paused"] == {"by": "<ann>", "at_ms": 1000, "reason": "no features"}
    page = read_only.request("/queues")[1]
    assert 'title="paused by &lt;ann&gt; at 1970-01-01 00:00:01 UTC: no features">paused</span>' in page
    assert "no job finishes" not in page
    assert re.search(
        r"predict\.<wbr>churn</div></td>\s*<td[^>]*>10</td>", read_only.request("/broker")[1]
    )  # leads to Queues
    lengths = read_only.json("/api/queues/length")["active_queues"]
    assert {"name": "predict.churn", "messages": 10} in lengths


def test_flower_does_not_start_without_a_login_or_open(redis_url: str, tmp_path: Path):
    with pytest.raises(Exception, match=r"HEADRACE_FLOWER_LOGIN.*--open") as refused:
        start_flower(redis_url, tmp_path, port=free_port(), HEADRACE_FLOWER_OPEN="false")
    assert "Traceback" not in str(refused.value)
