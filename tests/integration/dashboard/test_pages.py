"""Headrace's pages in Flower: a login, read-only unless told, nothing of a letter runs, and real clicks."""

from __future__ import annotations

import base64
import json
import re
import socket
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from http.cookiejar import CookieJar
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import redis

from headrace.catalog import published
from headrace.catalog.aliases import CANARY, PRODUCTION, Alias, encoded
from headrace.catalog.contract import Array, Contract, Output
from headrace.catalog.workers import publish_status
from headrace.connection.commands import execute
from headrace.wire.keys import Keys
from headrace_worker.local.embedded_redis import EmbeddedRedis
from headrace_worker.local.stack import Child, start_flower
from tests.support.stored_dead_letters import bury, bury_malformed, crashed, letter, traces

LOGIN = "ann:s3cret"
HOSTILE = "<script>document.title = 'owned'</script>"
PAGES = ("/dead-letters", "/models", "/queues", "/tasks", "/workers", "/broker", "/metrics", "/api/dead-letters")


class Site(NamedTuple):
    """A Flower of its own Redis."""

    url: str
    redis: redis.Redis

    def ask(
        self, path: str, *, login: str | None = LOGIN, form: Any = None, headers: Any = None, jar: Any = None
    ) -> tuple[int, str]:
        """Status and body of an answer."""
        body = None if form is None else urllib.parse.urlencode(form, doseq=True).encode()
        asked = urllib.request.Request(self.url + path, data=body, headers=headers or {})
        if login:
            asked.add_header("Authorization", f"Basic {base64.b64encode(login.encode()).decode()}")
        opener = urllib.request.build_opener(
            urllib.request.HTTPCookieProcessor(CookieJar() if jar is None else jar)
        )
        try:
            with opener.open(asked, timeout=20) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def json(self, path: str) -> Any:
        status, body = self.ask(path)
        assert status == 200, body
        return json.loads(body)

    def form(self, **fields: Any) -> tuple[int, str]:
        """What a click in a page does: its token goes along."""
        jar = CookieJar()
        _, page = self.ask("/dead-letters", jar=jar)
        token = re.search(r'name="_xsrf" value="([^"]+)"', page)
        assert token, page
        return self.ask("/dead-letters", form={**fields, "_xsrf": token[1]}, jar=jar)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture(scope="module")
def sites(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Site, Site]]:
    """One that acts and one that only shows, on one Redis."""
    children: list[Child] = []
    with EmbeddedRedis("--appendfsync", "no") as server, redis.Redis.from_url(server.url) as client:
        try:
            found = []
            for actions in ("true", "false"):
                port, folder = free_port(), tmp_path_factory.mktemp("flower")
                settings = {
                    "HEADRACE_FLOWER_LOGIN": LOGIN,
                    "HEADRACE_FLOWER_OPEN": "false",
                    "HEADRACE_FLOWER_ACTIONS": actions,
                }
                children.append(start_flower(server.url, folder, port=port, **settings))
                found.append(Site(f"http://127.0.0.1:{port}", client))
            yield found[0], found[1]
        finally:
            for child in children:
                child.stop()


@pytest.fixture
def acting(sites: tuple[Site, Site]) -> Site:
    sites[0].redis.flushall()
    return sites[0]


@pytest.fixture
def showing(sites: tuple[Site, Site]) -> Site:
    sites[1].redis.flushall()
    return sites[1]


def publish(site: Site, model: str = "churn", versions: tuple[str, ...] = ("1", "2")) -> None:
    for version in versions:
        contract = Contract(
            model=model, version=version, input=Array(shape=(2,)), methods={"predict": Output(shape=())}
        )
        published.publish(site.redis, Keys(), contract)


@pytest.mark.parametrize("path", PAGES)
def test_no_page_answers_without_the_login(showing: Site, path: str):
    assert showing.ask(path, login=None)[0] == 401
    assert showing.ask(path, login="ann:wrong")[0] == 401
    assert showing.ask(path)[0] == 200


@pytest.mark.parametrize("path", ["/dead-letters", "/models", "/queues"])
def test_empty_pages_say_so(showing: Site, path: str):
    status, page = showing.ask(path)
    assert status == 200
    assert "empty-table-message" in page


def test_letters_are_listed_newest_first_and_by_what_they_have_in_common(showing: Site):
    for number in range(60):
        error = "KeyError" if number % 2 else "ValueError"
        bury(showing.redis, letter(f"job-{number:02}", error=error, model="churn" if number < 50 else "fraud"))
    first = showing.json("/api/dead-letters")
    assert [one["id"] for one in first["letters"]][:2] == ["job-59", "job-58"]
    rest = showing.json(f"/api/dead-letters?start={first['next']}")
    assert [one["id"] for one in rest["letters"]] == [f"job-{number:02}" for number in range(9, -1, -1)]
    assert rest["next"] is None
    fraud = showing.json("/api/dead-letters?model=fraud&error=KeyError")
    assert [one["id"] for one in fraud["letters"]] == [f"job-{number}" for number in (59, 57, 55, 53, 51)]
    assert showing.ask("/dead-letters?reason=nonsense")[0] == 400


def test_a_letter_shows_its_history_and_no_payload(showing: Site):
    bury(showing.redis, letter("a", attempts=(crashed(), crashed(cause="error:ConnectionResetError"))))
    _, page = showing.ask("/dead-letters/a")
    assert "crash" in page
    assert "error:ConnectionResetError" in page
    assert "model.py, line 7" in page
    assert len(showing.json("/api/dead-letters/a")["attempts"]) == 2
    assert "payload" not in showing.json("/api/dead-letters/a")
    assert showing.ask("/dead-letters/none")[0] == 404
    assert "replayed, purged or dropped" in json.loads(showing.ask("/api/dead-letters/none")[1])["error"]


def test_nothing_out_of_redis_is_taken_for_html(acting: Site):
    name = "x'\"><img src=x onerror=alert(1)>/%2e%2e"
    bury(
        acting.redis,
        letter(
            name,
            error=HOSTILE,
            message=HOSTILE,
            traceback=HOSTILE,
            worker=HOSTILE,
            model=HOSTILE,
            queue=HOSTILE,
            metadata={HOSTILE: HOSTILE},
            attempts=(crashed(cause=f"error:{HOSTILE}"),),
        ),
    )
    publish(acting, "churn")
    execute(acting.redis, publish_status(Keys(), "churn", HOSTILE, ["1"], {"2": HOSTILE}))
    acting.redis.hset(Keys().aliases("churn"), HOSTILE, encoded(Alias(version=HOSTILE)))
    for path in (
        "/dead-letters",
        f"/dead-letters/{urllib.parse.quote(name, safe='')}",
        f"/dead-letters?model={urllib.parse.quote(HOSTILE)}",
        "/models",
    ):
        status, page = acting.ask(path)
        assert status == 200, path
        assert "document.title" in page, path
        assert HOSTILE not in page, path
        assert "<img src=x" not in page, path


def test_a_click_replays_and_purges(acting: Site):
    bury(acting.redis, letter("a"))
    bury(acting.redis, letter("b"))
    bury(acting.redis, letter("c"))
    malformed = bury_malformed(acting.redis, b"no job")
    status, page = acting.form(id=["a", malformed, "gone"], action="replay")
    assert status == 200
    assert all(said in page for said in ("1 replayed.", "1 stay", "1 were gone"))
    assert acting.redis.llen("predict.churn") == 1
    assert "1 purged." in acting.form(id=["b"], action="purge")[1]
    assert traces(acting.redis)["died"] == {b"c", malformed.encode()}


def test_what_is_chosen_badly_is_said_and_changes_nothing(acting: Site):
    bury(acting.redis, letter("a"))
    for fields, said in (
        ({"action": "replay"}, "choose the letters"),
        ({"action": "burn", "id": "a"}, "replay, purge"),
        ({"action": "replay", "id": "a", "version": "x"}, "number as text"),
    ):
        status, page = acting.form(**fields)
        assert (status, said in page) == (400, True), page
    assert acting.form(action="replay", id="a", version="9")[0] == 404  # no such version
    assert traces(acting.redis)["died"] == {b"a"}


def test_a_form_of_another_site_does_nothing(acting: Site):
    bury(acting.redis, letter("a"))
    form = {"id": "a", "action": "purge"}
    assert acting.ask("/dead-letters", form=form)[0] == 403
    jar = CookieJar()
    _, page = acting.ask("/dead-letters", jar=jar)
    form["_xsrf"] = re.search(r'name="_xsrf" value="([^"]+)"', page)[1]  # type: ignore[index]  # it is there
    headers = {"Sec-Fetch-Site": "cross-site"}
    assert acting.ask("/dead-letters", form=form, jar=jar, headers=headers)[0] == 403
    assert traces(acting.redis)["died"] == {b"a"}


def test_read_only_shows_no_button_and_does_nothing(showing: Site, acting: Site):
    bury(acting.redis, letter("a"))
    for path in ("/dead-letters", "/dead-letters/a"):
        assert 'name="action"' not in showing.ask(path)[1]
    jar = CookieJar()
    _, page = acting.ask("/dead-letters", jar=jar)
    token = re.search(r'name="_xsrf" value="([^"]+)"', page)[1]  # type: ignore[index]  # it is there
    form = {"id": "a", "action": "purge", "_xsrf": token}
    status, said = showing.ask("/dead-letters", form=form, jar=jar)
    assert (status, "--allow-actions" in said) == (403, True)
    assert showing.ask("/api/worker/shutdown/w", form={})[0] == 403
    assert traces(acting.redis)["died"] == {b"a"}


def test_results_are_not_told_by_flowers_api(showing: Site):
    showing.redis.set("celery-task-meta-a", b'{"status": "SUCCESS", "result": 42, "task_id": "a"}')
    status, said = showing.ask("/api/task/result/a")
    assert (status, "42" in said) == (403, False)


def test_models_show_versions_aliases_and_what_workers_say(showing: Site):
    publish(showing, versions=("1", "2", "10"))
    showing.redis.hset(Keys().aliases("churn"), PRODUCTION, encoded(Alias(version="2")))
    showing.redis.hset(Keys().aliases("churn"), CANARY, encoded(Alias(version="10", share=0.1)))
    refused, runtimes = {"1": "its example fails"}, {"2": "sklearn", "10": "treelite"}
    execute(showing.redis, publish_status(Keys(), "churn", "w1@host", ["2", "10"], refused, runtimes=runtimes))
    [model] = showing.json("/api/models")["models"]
    assert model["versions"] == ["10", "2", "1"]
    assert model["loaded"]["w1@host"]["versions"] == ["2", "10"]
    assert model["refused"]["1"]["why"] == "its example fails"
    assert model["runtimes"] == {"2": "sklearn", "10": "treelite"}
    _, page = showing.ask("/models")
    assert re.search(r"canary <[^>]*>10, 10 % of jobs, treelite", page)
    assert "<td>sklearn</td>" in page
    assert "its example fails" in page


def test_many_models_are_paged(showing: Site):
    for number in range(60):
        publish(showing, f"model-{number:02}", ("1",))
    first = showing.json("/api/models")
    rest = showing.json(f"/api/models?start={first['next']}")
    assert [len(page["models"]) for page in (first, rest)] == [50, 10]
    assert rest["next"] is None


def test_queues_and_the_broker_tab_count_every_priority(showing: Site):
    publish(showing)
    for name, count in zip(Keys().lists("predict.churn"), (1, 2, 3, 4), strict=True):
        showing.redis.rpush(name, *[b"{}"] * count)
    showing.redis.zadd(Keys().delayed("predict.churn"), {b"{}": 1})
    [queue] = showing.json("/api/queues")["queues"]
    assert (queue["ready"], queue["delayed"], queue["leased"]) == (10, 1, 0)
    assert queue["by_priority"] == {"0": 1, "3": 2, "6": 3, "9": 4}
    assert queue["predicted_wait"] is None
    assert "nothing moves" in showing.ask("/queues")[1]
    assert re.search(r"predict\.churn</td>\s*<td[^>]*>10</td>", showing.ask("/broker")[1])


def test_flower_does_not_start_without_a_login_unless_told(redis_url: str, tmp_path: Path):
    with pytest.raises(Exception, match=r"HEADRACE_FLOWER_LOGIN.*--open") as refused:
        start_flower(redis_url, tmp_path, port=free_port(), HEADRACE_FLOWER_OPEN="false")
    assert "Traceback" not in str(refused.value)
