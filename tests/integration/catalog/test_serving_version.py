"""Files, contracts and rows without a version use the version that serves: `production`, else the newest."""

from __future__ import annotations

import asyncio
import csv
import json
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
import redis

from headrace import AsyncClient, Client
from headrace.batch import predict_file, predict_rows
from headrace.catalog.aliases import Alias, encode_alias
from headrace.catalog.contract import Feature, Named
from headrace.catalog.published import publish_contract
from headrace.settings import Settings
from headrace.wire.keys import Keys
from tests.support.answering_worker import CHURN, AnsweringWorker
from tests.support.command import headrace

KEYS = Keys()
ROWS = [{"age": age} for age in range(300)]


@pytest.fixture
def client(redis_url: str, server: redis.Redis) -> Iterator[Client]:
    for version in ("1", "2"):
        publish_contract(server, KEYS, msgspec.structs.replace(CHURN, version=version))
    with Client(redis_url) as client:
        yield client


def point(server: redis.Redis, alias: str, version: str, share: float | None = None) -> None:
    server.hset(KEYS.aliases("churn"), alias, encode_alias(Alias(version=version, share=share)))


def write_rows(folder: Path) -> tuple[Path, Path]:
    source = folder / "in.csv"
    source.write_text("age\n" + "\n".join(str(row["age"]) for row in ROWS) + "\n")
    return source, folder / "out.csv"


def test_a_file_is_predicted_by_the_newest_version_without_an_alias(client, redis_url, tmp_path):
    with AnsweringWorker(redis_url) as worker:
        report = predict_file(client, "churn", *write_rows(tmp_path))
    assert (report.version, set(worker.versions)) == ("2", {"2"})


def test_a_file_is_predicted_by_production_after_a_promotion_and_a_rollback(client, server, redis_url, tmp_path):
    client.contract("churn")  # a client that has read the aliases before sees the change all the same
    for production in ("1", "2", "1"):
        point(server, "production", production)
        with AnsweringWorker(redis_url) as worker:
            source, target = write_rows(tmp_path)
            report = predict_file(client, "churn", source, target, force=True)
            assert [row.error for row in predict_rows(client, "churn", ROWS)] == [None] * len(ROWS)
        assert (report.version, client.contract("churn").version) == (production, production)
        assert (set(worker.versions), len(worker.versions)) == ({production}, 6)


def test_the_command_prints_the_version_and_reports_it(client, server, redis_url, tmp_path):
    point(server, "production", "1")
    source, target = write_rows(tmp_path)
    with AnsweringWorker(redis_url) as worker:
        command = headrace("batch", "churn", str(source), "-o", str(target), "--json", "--url", redis_url)
    assert command.returncode == 0, command.stderr
    assert "300 rows predicted by churn@1" in command.stderr
    assert json.loads(command.stdout)["version"] == "1"
    assert set(worker.versions) == {"1"}


@pytest.mark.parametrize("production", [None, "1"])
def test_a_canary_predicts_no_file(client, server, redis_url, tmp_path, production):
    publish_contract(server, KEYS, msgspec.structs.replace(CHURN, version="3"))
    point(server, "canary", "2", share=0.1)
    if production is not None:
        point(server, "production", production)
    with AnsweringWorker(redis_url) as worker:
        report = predict_file(client, "churn", *write_rows(tmp_path), rows_per_job=1)
    assert set(worker.versions) == {production or "3"} == {report.version}
    assert len(worker.versions) == len(ROWS)


def test_a_version_or_alias_that_is_named_predicts_the_file(client, server, redis_url, tmp_path):
    point(server, "production", "1")
    point(server, "tested", "2")
    source, target = write_rows(tmp_path)
    for model, version in (("churn", "2"), ("churn", "tested"), ("churn@tested", None)):
        with AnsweringWorker(redis_url) as worker:
            report = predict_file(client, model, source, target, version=version, force=True)
        assert (report.version, set(worker.versions)) == ("2", {"2"})


def test_production_may_move_while_a_file_is_predicted(client, server, redis_url, tmp_path):
    point(server, "production", "1")
    source, target = write_rows(tmp_path)

    def move(_: object) -> None:
        point(server, "production", "2")

    with AnsweringWorker(redis_url) as worker:
        report = predict_file(client, "churn", source, target, rows_per_job=10, in_flight=2, on_progress=move)
    assert (report.version, set(worker.versions), len(worker.versions)) == ("1", {"1"}, 30)
    assert client.contract("churn").version == "2"
    with target.open(newline="") as file:
        assert [float(row["prediction"]) for row in csv.DictReader(file)] == [2.0 * age for age in range(300)]


def test_the_columns_of_a_file_are_those_of_the_version_that_serves(client, server, redis_url, tmp_path):
    further = Named(features=(Feature(name="age", kind="number"), Feature(name="plan", kind="string")))
    publish_contract(server, KEYS, msgspec.structs.replace(CHURN, version="3", input=further))
    point(server, "production", "1")
    with AnsweringWorker(redis_url):
        assert predict_file(client, "churn", *write_rows(tmp_path)).failed == 0


def test_the_asyncio_client_reads_the_contract_of_the_version_that_serves(client, server, redis_url):
    async def contract_version() -> str:
        async with AsyncClient(settings=Settings(redis_url=redis_url)) as aio_client:
            await aio_client.contract("churn")
            point(server, "production", "1")
            return (await aio_client.contract("churn")).version

    assert asyncio.run(contract_version()) == "1"
