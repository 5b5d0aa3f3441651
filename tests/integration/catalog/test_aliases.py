"""A producer resolves aliases: the version of a job is fixed when it is enqueued."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import pytest
import redis

from headrace import Client
from headrace.catalog.aliases import Alias, decode_history, encode_alias, move_alias, read_history
from headrace.catalog.contract import Feature, Named
from headrace.catalog.published import publish_contract
from headrace.connection.commands import execute
from headrace.errors import InvalidInput, UnknownModel
from headrace.settings import Settings
from headrace.wire.keys import Keys
from headrace.wire.parsing import parse
from headrace.wire.queues import queue_name
from tests.support.answering_worker import CHURN

AGE = {"age": 41}
KEYS = Keys()
#: A contract with a further feature.
STRICTER = msgspec.structs.replace(
    CHURN,
    version="9",
    input=Named(features=(Feature(name="age", kind="number"), Feature(name="plan", kind="string"))),
)


@pytest.fixture
def client(redis_url: str, server: redis.Redis) -> Iterator[Client]:
    publish_contract(server, KEYS, CHURN)
    publish_contract(server, KEYS, STRICTER)
    point(server, "production", CHURN.version)
    with Client(settings=Settings(redis_url=redis_url, contract_ttl=0)) as client:
        yield client


def point(server: redis.Redis, alias: str, version: str, share: float | None = None) -> None:
    server.hset(KEYS.aliases("churn"), alias, encode_alias(Alias(version=version, share=share)))


def versions(server: redis.Redis) -> dict[str, str | None]:
    """Return the versions in the waiting messages, by job."""
    jobs = [parse(message).to_job() for message in server.lrange(queue_name("churn"), 0, -1)]
    return {job.id: job.version for job in jobs}


def test_a_job_that_names_no_version_is_enqueued_for_production(client: Client, server: redis.Redis):
    job = client.submit("churn", AGE)
    assert versions(server) == {job.id: CHURN.version}


def test_a_job_keeps_the_version_it_was_enqueued_for(client: Client, server: redis.Redis):
    before = client.submit("churn", AGE)
    point(server, "production", "9")
    after = client.submit("churn", {**AGE, "plan": "gold"})
    assert versions(server) == {before.id: CHURN.version, after.id: "9"}


def test_a_repeated_submit_is_the_same_job_even_if_production_has_moved(client: Client, server: redis.Redis):
    client.submit("churn", {**AGE}, id="order-1")
    publish_contract(server, KEYS, msgspec.structs.replace(CHURN, version="10"))
    point(server, "production", "10")
    client.submit("churn", {**AGE}, id="order-1")
    assert versions(server) == {"order-1": CHURN.version}


def test_a_job_may_name_an_alias(client: Client, server: redis.Redis):
    point(server, "tested", "9")
    gold = {**AGE, "plan": "gold"}
    jobs = [client.submit("churn", gold, version="tested"), client.submit("churn@tested", gold)]
    jobs += client.submit_many("churn@tested", [gold])
    assert versions(server) == {job.id: "9" for job in jobs}
    assert {job.model for job in jobs} == {"churn"}
    assert client.contract("churn@tested").version == "9"
    with pytest.raises(UnknownModel, match="no alias 'stable'; it has production, tested"):
        client.submit("churn@stable", AGE)


def test_a_version_may_follow_the_name_of_the_model(client: Client, server: redis.Redis):
    point(server, "production", CHURN.version)
    job = client.submit("churn@9", {**AGE, "plan": "gold"})
    same = client.submit("churn", {**AGE, "plan": "gold"}, version="9", id=job.id)
    assert same.id == job.id  # a repeat of the same job, however the version is given
    assert versions(server) == {job.id: "9"}
    with pytest.raises(InvalidInput, match="give one of them"):
        client.submit("churn@9", AGE, version="9")
    with pytest.raises(InvalidInput, match="a model's name is"):
        client.submit("@9", AGE)


def test_a_canary_takes_its_share_and_the_handles_keep_their_order(client: Client, server: redis.Redis):
    publish_contract(server, KEYS, msgspec.structs.replace(CHURN, version="10"))
    point(server, "canary", "10", share=0.25)
    instances = [{"age": age} for age in range(800)]
    jobs = client.submit_many("churn", instances)
    ages = {
        job.id: (job.version, job.instances[0]["age"])
        for job in (parse(message).to_job() for message in server.lrange(queue_name("churn"), 0, -1))
    }
    assert [ages[job.id][1] for job in jobs] == list(range(800))
    assert sum(version == "10" for version, _ in ages.values()) / 800 == pytest.approx(0.25, abs=0.08)
    assert {version for version, _ in ages.values()} == {"10", CHURN.version}


def test_each_job_is_checked_against_the_contract_of_its_own_version(client: Client, server: redis.Redis):
    point(server, "canary", "9", share=0.5)
    ids = [f"job-{number}" for number in range(40)]
    with pytest.raises(InvalidInput, match=r"churn@9: instance \d+: .*plan"):
        client.submit_many("churn", [AGE] * 40, ids=ids)
    assert versions(server) == {}


def test_a_client_without_checks_leaves_the_version_to_the_worker(
    client: Client, redis_url: str, server: redis.Redis
):
    with Client(redis_url, check=False) as unchecked:
        job = unchecked.submit("churn", AGE)
    assert versions(server) == {job.id: None}


def test_an_alias_is_moved_only_from_its_current_version_and_every_change_is_recorded(server: redis.Redis):
    unset, first, second = None, Alias(version="1"), Alias(version="2", share=0.1)
    steps = [(unset, first, 1), (unset, second, 0), (first, second, 1), (second, unset, 1)]
    for before, after, reply in steps:
        move = move_alias(KEYS, "churn", "canary", before, after, by="ann", reason="to see")
        assert execute(server, move) == reply
    history = decode_history("churn", execute(server, read_history(KEYS, "churn")))
    assert [(change.former, change.version, change.share) for change in history] == [
        ("2", None, None),
        ("1", "2", 0.1),
        (None, "1", None),
    ]
    assert {(change.by, change.reason) for change in history} == {("ann", "to see")}
    assert abs(history[0].at_ms - server.time()[0] * 1000) < 60_000
    assert not server.exists(KEYS.aliases("churn"))
