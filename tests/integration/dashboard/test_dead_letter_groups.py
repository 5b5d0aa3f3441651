"""Dead letters by cause, as `headrace dead groups` counts them, and the replay of all letters of a cause."""

from __future__ import annotations

import re
from http.cookiejar import CookieJar
from typing import Any

import msgspec

from headrace.catalog.published import publish_contract
from headrace.client import Client
from headrace.wire.keys import Keys
from tests.support.answering_worker import CHURN
from tests.support.flower_site import Site
from tests.support.stored_dead_letters import (
    ago_ms,
    make_letter,
    make_message,
    store_letter,
    store_malformed,
    stored_ids,
)
from tests.support.waiting import wait_until

KEYS = Keys()
HOSTILE = "<script>document.title = 'owned'</script>"


def store_causes(site: Site, count: int = 60) -> None:
    """Store letters of two causes that differ in the message alone, and one of another version."""
    for version in ("2", "3"):
        publish_contract(site.redis, KEYS, msgspec.structs.replace(CHURN, version=version))
    letters = [make_letter(f"row-{number}", message=f"row {number} cannot be") for number in range(count)]
    letters += [
        make_letter("other", message="another cause"),
        make_letter("old", message="row 7 cannot be", version="1"),
    ]
    for letter in letters:
        store_letter(site.redis, letter, make_message(letter.id, [{"age": 1}]))


def links_of(page: str, text: str) -> list[str]:
    """Return the addresses of the links with this text, as a browser follows them."""
    return [link.replace("&amp;", "&") for link in re.findall(rf'href="([^"]+)"[^>]*>{text}', page)]


def start(site: Site, address: str, **fields: Any) -> str:
    """Send the form of a replay, and return the number of the replay."""
    status, page = site.submit_form(address, **fields)
    assert status == 200, page
    match = re.search(r'"page-eyebrow">(?:Replay|Dry run) (\d+)', page)
    assert match, page
    return match[1]


def finished(site: Site, number: str) -> Any:
    """Wait for the end of a replay, and return it."""

    def read() -> Any:
        progress = site.json(f"/api/replays/{number}")
        return progress["ended_ms"] and progress

    return wait_until(read)


def test_groups_are_those_of_the_command(acting: Site):
    store_causes(acting)
    address = acting.redis.connection_pool.connection_kwargs
    with Client(f"redis://{address['host']}:{address['port']}/0") as client:
        expected = [(group.count, group.version, group.message) for group in client.dead_letters.groups()]
    groups = acting.json("/api/dead-letter-groups")["groups"]
    assert [(group["count"], group["version"], group["message"]) for group in groups] == expected
    assert (60, "3", "row # cannot be") in expected
    page = acting.request("/dead-letter-groups")[1]
    assert "Replay all 60…" in page
    assert [group["count"] for group in acting.json("/api/dead-letter-groups?model=none")["groups"]] == []


def test_a_click_replays_all_letters_of_a_cause_across_pages_to_another_version(acting: Site):
    store_causes(acting)
    [address] = links_of(acting.request("/dead-letter-groups")[1], "Replay all 60…")
    page = acting.request(address)[1]
    assert "Replay all 60</button>" in page
    assert "data-confirm=" in page
    number = start(acting, address, action="replay", version="2")
    assert finished(acting, number)["result"]["done"] == 60
    assert stored_ids(acting.redis)["dead"] == {b"other", b"old"}
    assert acting.redis.llen(KEYS.retried("predict.churn")[0]) == 60
    assert ">done<" in acting.request(f"/replays/{number}")[1]


def test_a_dry_run_counts_and_changes_nothing(acting: Site):
    store_causes(acting)
    [address] = links_of(acting.request("/dead-letter-groups")[1], "Replay all 60…")
    for fields in ({"action": "dry run"}, {}):
        number = start(acting, address, **fields)
        progress = finished(acting, number)
        assert (progress["result"]["done"], progress["request"]["dry_run"]) == (60, True)
    assert len(stored_ids(acting.redis)["dead"]) == 62
    missing = finished(acting, start(acting, address, action="dry run", version="9"))
    assert "9" in missing["error"]


def test_a_replay_at_a_rate_shows_its_counts_and_stops(acting: Site):
    store_causes(acting)
    number = start(acting, "/replays?error=ValueError", action="replay", rate="2")
    wait_until(lambda: acting.json(f"/api/replays/{number}")["result"]["done"])
    assert ">running<" in acting.request(f"/replays/{number}")[1]
    acting.submit_form(f"/replays/{number}")
    progress = finished(acting, number)
    assert (progress["is_stopped"], progress["error"]) == (True, None)
    assert 0 < progress["result"]["done"] < 62
    assert len(stored_ids(acting.redis)["dead"]) == 62 - progress["result"]["done"]
    assert ">stopped<" in acting.request(f"/replays/{number}")[1]


def test_a_replay_without_a_filter_or_with_a_wrong_field_is_refused(acting: Site):
    store_causes(acting, 3)
    for address, fields, reason in (
        ("/replays", {"action": "replay"}, "set a filter first"),
        ("/replays?model=churn", {"action": "replay", "rate": "fast"}, "letters a second"),
        ("/replays?model=churn", {"action": "replay", "rate": "-1"}, "letters a second"),
        ("/replays?model=churn", {"action": "replay", "version": "x"}, "number as text"),
        ("/replays?reason=nonsense", {"action": "replay"}, "one of"),
    ):
        status, page = acting.submit_form(address, **fields)
        assert (status, reason in page) == (400, True), page
    assert len(stored_ids(acting.redis)["dead"]) == 5
    assert acting.request("/replays/99999")[0] == 404


def test_a_replay_needs_actions_and_a_form_of_this_site(acting: Site, read_only: Site):
    store_causes(acting, 3)
    address, jar = "/replays?model=churn", CookieJar()
    assert acting.request(address, form={"action": "replay"})[0] == 403
    token = re.search(r'name="_xsrf" value="([^"]+)"', acting.request(address, jar=jar)[1])
    assert token
    form = {"action": "replay", "_xsrf": token[1]}
    assert acting.request(address, form=form, jar=jar, headers={"Sec-Fetch-Site": "cross-site"})[0] == 403
    status, page = read_only.request(address, form=form, jar=jar)
    assert (status, "--allow-actions" in page) == (403, True)
    assert 'name="action"' not in read_only.request(address)[1]
    assert "Replay all" not in read_only.request("/dead-letter-groups")[1]
    assert len(stored_ids(acting.redis)["dead"]) == 5


def test_the_filter_stays_after_a_change_and_selects_a_period(acting: Site):
    store_letter(acting.redis, make_letter("new", error="KeyError"))
    store_letter(acting.redis, make_letter("hour", error="KeyError"), died_ms=ago_ms(5000))
    store_letter(acting.redis, make_letter("else"))
    query = "?error=KeyError&within=3600"
    assert [letter["id"] for letter in acting.json(f"/api/dead-letters{query}")["dead_letters"]] == ["new"]
    groups = acting.json(f"/api/dead-letter-groups{query}")["groups"]
    assert [(group["count"], group["example"]) for group in groups] == [(1, "new")]
    page = acting.submit_form(f"/dead-letters{query}", action="purge", id="new")[1]
    assert "1 purged." in page
    assert 'name="error" value="KeyError"' in page
    assert re.search(r'<option value="3600" selected>', page)
    assert "No dead letter matches." in page


def test_letters_without_a_model_are_a_cause_of_their_own(acting: Site):
    store_malformed(acting.redis, b"no job")
    store_letter(acting.redis, make_letter("a"))
    page = acting.request("/dead-letter-groups")[1]
    links = [link for link in links_of(page, "Show") if "malformed" in link]
    assert len(links) == 1
    [letter] = acting.json(links[0].replace("/dead-letters", "/api/dead-letters"))["dead_letters"]
    assert letter["reason"] == "malformed"


def test_the_values_of_a_cause_are_escaped(acting: Site):
    store_letter(acting.redis, make_letter("a", error=HOSTILE, message=HOSTILE, model=HOSTILE, version=HOSTILE))
    page = acting.request("/dead-letter-groups")[1]
    assert "document.title" in page
    for address in ("/dead-letter-groups", links_of(page, "Replay all 1…")[0], links_of(page, "Show")[0]):
        status, page = acting.request(address)
        assert (status, HOSTILE in page) == (200, False), address
        assert "document.title" in page
