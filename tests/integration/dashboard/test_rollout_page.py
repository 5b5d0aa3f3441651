"""A canary beside production: its verdict, and promotion and rollback by form and by the API."""

from __future__ import annotations

import json
import re
from http.cookiejar import CookieJar
from typing import Any

import pytest

from headrace.catalog.aliases import CANARY, PRODUCTION, SHADOW, Alias, decode_aliases, encode_alias
from headrace.catalog.contract import Array, Contract, Output
from headrace.catalog.published import publish_contract
from headrace.catalog.workers import publish_status
from headrace.connection.commands import execute
from headrace.wire.keys import Keys
from headrace_worker.rollout.version_stats import VersionStats, add_command
from tests.support.flower_site import Site

KEYS = Keys()
HOSTILE = "<script>document.title = 'owned'</script>"


def publish(site: Site, *, width: int = 2, loaded: tuple[str, ...] = ("1", "2", "3")) -> None:
    """Publish three versions of churn, the third for rows of `width`; two workers, a canary and production."""
    for version in ("1", "2", "3"):
        shape = (width,) if version == "3" else (2,)
        contract = Contract(
            model="churn", version=version, input=Array(shape=shape), methods={"predict": Output(shape=())}
        )
        publish_contract(site.redis, KEYS, contract)
    execute(site.redis, publish_status(KEYS, "churn", "w1@host", ["1", "2", "3"], {}))
    execute(site.redis, publish_status(KEYS, "churn", "w2@host", list(loaded), {}))
    set_alias(site, PRODUCTION, Alias(version="2"))
    set_alias(site, CANARY, Alias(version="3", share=0.1))


def set_alias(site: Site, name: str, alias: Alias) -> None:
    site.redis.hset(KEYS.aliases("churn"), name, encode_alias(alias))


def versions(site: Site) -> dict[str, str]:
    stored = decode_aliases("churn", site.redis.hgetall(KEYS.aliases("churn"))).by_name
    return {name: alias.version for name, alias in stored.items()}


def count(site: Site, version: str, jobs: int, *, failed: int = 0, seconds: float = 0.01, **numbers: int) -> None:
    stats = VersionStats(succeeded=jobs - failed, failed=failed, **numbers)  # type: ignore[arg-type]  # counts only
    stats.add_duration(seconds, jobs)
    execute(site.redis, add_command(KEYS, "churn", version, stats))


def post(site: Site, path: str = "/models/churn", **fields: str) -> tuple[int, str]:
    return site.submit_form(path, **{"reason": "fewer false alarms", **fields})


def verdict(site: Site, alias: str = CANARY) -> Any:
    compared = site.json("/api/models/churn")["served"]["compared"]
    return next(row["verdict"] for row in compared if row["alias"] == alias)


def test_a_canary_stands_beside_production_with_its_verdict(read_only: Site):
    publish(read_only)
    count(read_only, "2", 5_000, failed=5)
    count(read_only, "3", 12)
    assert verdict(read_only) == "too few jobs: 12 of 100"
    count(read_only, "3", 200)
    assert verdict(read_only) == "good"
    count(read_only, "3", 100, failed=60)
    assert verdict(read_only) == "failed more: 19.2% of its 312 jobs failed, 0.1% of production's"
    page = read_only.request("/models")[1]
    assert "failed more: 19.2% of its 312 jobs failed" in page
    row = re.search(r"<td[^>]*>production</td>(.*?)</tr>", page, re.DOTALL)
    assert row
    assert ">5,000<" in row[1]
    assert '<a href="/models/churn">' in page


def test_a_shadow_is_shown_with_the_predictions_that_differ(read_only: Site):
    publish(read_only)
    set_alias(read_only, SHADOW, Alias(version="1"))
    count(read_only, "2", 500)
    count(read_only, "1", 400, compared=400, differing=7)
    assert verdict(read_only, SHADOW) == "differs: 7 of 400 predictions"
    assert "7 of 400<" in read_only.request("/models/churn")[1]


def test_a_canary_is_promoted_with_a_reason_and_the_name_of_the_user(acting: Site):
    publish(acting)
    status, page = post(acting, action="promote", version="3", expected="2")
    assert status == 200
    assert "run on churn@3" in page
    assert versions(acting) == {PRODUCTION: "3"}
    promoted_canary, promotion = acting.json("/api/models/churn")["changes"]
    assert (promotion["alias"], promotion["former"], promotion["version"]) == (PRODUCTION, "2", "3")
    assert (promotion["by"], promotion["reason"]) == ("ann (Flower)", "fewer false alarms")
    assert (promoted_canary["alias"], promoted_canary["reason"]) == (CANARY, "promoted to production")
    assert int(acting.redis.get(KEYS.changes)) == 2  # workers read aliases again


def test_production_is_rolled_back_and_a_canary_ends(acting: Site):
    publish(acting)
    assert post(acting, action="promote", version="3", expected="2")[0] == 200
    assert post(acting, action="rollback", alias=PRODUCTION, expected="3")[0] == 200
    assert versions(acting) == {PRODUCTION: "2"}
    set_alias(acting, CANARY, Alias(version="1", share=0.5))
    assert post(acting, action="rollback", alias=CANARY, expected="1", reason="slower")[0] == 200
    assert versions(acting) == {PRODUCTION: "2"}
    newest = acting.json("/api/models/churn")["changes"][0]
    assert (newest["alias"], newest["rollback"], newest["reason"]) == (CANARY, True, "slower")
    status, page = post(acting, action="rollback", alias=CANARY, expected="1")
    assert (status, "nothing to roll back" in page) == (409, True)


def test_a_version_that_breaks_producers_needs_force(acting: Site):
    publish(acting, width=3)
    status, page = post(acting, action="promote", version="3", expected="2")
    assert (status, "breaks producers" in page) == (409, True)
    assert versions(acting)[PRODUCTION] == "2"
    assert post(acting, action="promote", version="3", expected="2", force="true")[0] == 200
    assert versions(acting)[PRODUCTION] == "3"


@pytest.mark.parametrize(
    ("fields", "status", "reason"),
    [
        ({"reason": "  "}, 400, "give a reason"),
        ({"reason": "x" * 501}, 400, "at most 500"),
        ({"version": "x"}, 400, "a version is a number"),
        ({"version": "9"}, 404, "no version"),
        ({"expected": "1"}, 409, "load the page again"),
        ({"action": "burn"}, 400, "promote or rollback"),
        ({"action": "rollback", "alias": "Nonsense"}, 400, "an alias is"),
        ({"action": "rollback", "alias": PRODUCTION}, 409, "promote the version you want"),
        ({"action": "rollback", "alias": CANARY, "expected": "1"}, 409, "load the page again"),
    ],
)
def test_a_change_is_refused_with_a_reason_and_changes_nothing(
    acting: Site, fields: dict[str, str], status: int, reason: str
):
    publish(acting)
    answered, page = post(acting, **{"action": "promote", "version": "3", "expected": "2", **fields})
    assert (answered, reason in page) == (status, True), page
    assert versions(acting) == {PRODUCTION: "2", CANARY: "3"}


def test_a_version_that_a_worker_has_not_loaded_or_refuses_is_not_promoted(acting: Site):
    publish(acting, loaded=("1", "2"))
    status, page = post(acting, action="promote", version="3", expected="2")
    assert (status, "not loaded by w2@host" in page) == (409, True)
    assert acting.json("/api/models/churn")["promotable"] == ["1"]
    execute(acting.redis, publish_status(KEYS, "churn", "w2@host", ["1", "2"], {"3": "its example fails"}))
    status, page = post(acting, action="promote", version="3", expected="2")
    assert (status, "its example fails" in page) == (409, True)
    assert versions(acting)[PRODUCTION] == "2"


def test_a_former_version_that_a_worker_refuses_is_not_rolled_back_to(acting: Site):
    publish(acting)
    assert post(acting, action="promote", version="3", expected="2")[0] == 200
    execute(acting.redis, publish_status(KEYS, "churn", "w2@host", ["3"], {"2": "its file is damaged"}))
    status, page = post(acting, action="rollback", alias=PRODUCTION, expected="3")
    assert (status, "its file is damaged" in page) == (409, True)
    assert versions(acting)[PRODUCTION] == "3"


def test_the_api_promotes_with_a_token_of_its_own_and_answers_with_the_model(acting: Site):
    publish(acting)
    fields = {"action": "promote", "version": "3", "expected": "2", "reason": "good for a day"}
    assert acting.request("/api/models/churn", form=fields)[0] == 403
    status, body = acting.request(
        "/api/models/churn", form={**fields, "_xsrf": "00"}, headers={"Cookie": "_xsrf=00"}
    )
    assert status == 200, body
    assert json.loads(body)["served"]["aliases"] == {PRODUCTION: {"version": "3"}}
    status, body = acting.request(
        "/api/models/churn", form={**fields, "_xsrf": "00"}, headers={"Cookie": "_xsrf=00"}
    )
    assert (status, "load the page again" in json.loads(body)["error"]) == (409, True)


def test_read_only_flower_shows_no_form_and_other_sites_cannot_promote(acting: Site, read_only: Site):
    publish(acting)
    form = {"action": "promote", "version": "3", "expected": "2", "reason": "good"}
    jar = CookieJar()
    token = re.search(r'name="_xsrf" value="([^"]+)"', acting.request("/models/churn", jar=jar)[1])
    assert token
    form["_xsrf"] = token[1]
    status, page = read_only.request("/models/churn", form=form, jar=jar)
    assert (status, "--allow-actions" in page) == (403, True)
    page = read_only.request("/models/churn")[1]
    assert "<form" not in page.partition('id="main-content"')[2]
    headers = {"Sec-Fetch-Site": "cross-site"}
    assert acting.request("/models/churn", form=form, jar=jar, headers=headers)[0] == 403
    assert acting.request("/models/churn", form=form, jar=jar, login=None)[0] == 401
    assert versions(acting)[PRODUCTION] == "2"


def test_an_unknown_model_is_404_and_texts_are_escaped(acting: Site):
    assert acting.request("/models/none")[0] == 404
    assert acting.request("/api/models/none")[0] == 404
    publish(acting)
    assert post(acting, action="rollback", alias=CANARY, expected="3", reason=HOSTILE)[0] == 200
    page = acting.request("/models/churn")[1]
    assert "document.title" in page
    assert HOSTILE not in page
