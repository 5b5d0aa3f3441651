"""Tests of the two pages about dead letters: their commands and examples run, from top to bottom."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pandas as pd
import pytest
import redis
from sklearn.compose import make_column_transformer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder
from skops import io as skops

from headrace import Client
from headrace.dead_letters.filter import DeadLetterFilter
from headrace.wire.dead_letter import DeadLetterWithMessage
from headrace.wire.outcome import Reason
from headrace_worker.local.embedded_redis import EmbeddedRedis
from headrace_worker.local.stack import start_worker
from headrace_worker.packaging.package import package
from headrace_worker.store.store import Store
from tests.support.stored_dead_letters import (
    crashed_attempt,
    make_letter,
    make_message,
    store_letter,
    store_malformed,
)

DOCS = Path(__file__).parents[2] / "docs"
HOW_TO, REFERENCE = DOCS / "how-to" / "handle-dead-letters.md", DOCS / "reference" / "dead-letters.md"
CUSTOMERS = pd.DataFrame({"age": [41, 23, 67, 35], "plan": ["gold", "basic", "silver", "gold"]})


class Installation:
    """A Redis, a store with `churn`, and the files that the pages name."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url, self.folder = url, folder
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        self.environ = {
            **os.environ,
            "PATH": path,
            "HEADRACE_REDIS_URL": url,
            "HEADRACE_MODELS": str(folder / "models"),
        }

    def run(self, block: str) -> str:
        """Run a block of commands, each of which must succeed; return their output."""
        result = subprocess.run(
            ["sh", "-e", "-c", block],
            cwd=self.folder,
            env=self.environ,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert result.returncode == 0, f"{block}{result.stdout}{result.stderr}"
        return result.stdout + result.stderr

    def store_letters(self) -> None:
        """Store forty failures of the first version, the last one order-4711; a crash; and a malformed message."""
        a_week_ago = int(time.time() * 1000) - 8 * 86_400_000
        with redis.Redis.from_url(self.url) as server:
            instances = [{"age": 41, "plan": "gold"}]
            for number in range(40):
                name = f"order-{4672 + number}"
                letter = make_letter(name, version="1", message=f"column {number} is of the wrong kind")
                store_letter(server, letter, make_message(name, instances))
            store_letter(
                server,
                make_letter("old", reason="crash", error="WorkerLostError", attempts=(crashed_attempt(),)),
                died_ms=a_week_ago,
            )
            store_malformed(server, b"\x00garbage")


@pytest.fixture
def installation(tmp_path: Path) -> Iterator[Installation]:
    encode = make_column_transformer((OneHotEncoder(handle_unknown="ignore"), ["plan"]), remainder="passthrough")
    skops.dump(make_pipeline(encode, LogisticRegression()).fit(CUSTOMERS, [0, 1, 0, 1]), tmp_path / "churn.skops")
    shutil.copy(tmp_path / "churn.skops", tmp_path / "mended.skops")
    CUSTOMERS.to_csv(tmp_path / "example.csv", index=False)
    package(Store(tmp_path / "models"), tmp_path / "churn.skops", name="churn", example=tmp_path / "example.csv")
    with EmbeddedRedis("--appendfsync", "no") as server:
        worker = start_worker(server.url, tmp_path / "models", tmp_path, concurrency=1)
        try:
            yield Installation(server.url, tmp_path)
        finally:
            worker.stop()


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)


def test_the_how_to_page_can_be_followed_from_top_to_bottom(installation: Installation):
    installation.store_letters()
    outputs = []
    for block in blocks(HOW_TO, "sh"):
        outputs.append(installation.run(block))
        if "models add" in block:
            await_version(installation, "2")
    assert "   40  churn@1  permanent  ValueError" in outputs[0]
    assert "column # is of the wrong kind" in outputs[0]
    assert '{"age":41,"plan":"gold"}' in outputs[2]
    output = "".join(outputs)
    assert "39 dead letters would be replayed\n39 dead letters replayed\n" in output
    assert output.endswith("1 dead letter exported\n1 dead letter purged\n1 dead letter purged\n")
    with Client(installation.url) as client:
        jobs = [client.job(f"order-{4672 + number}") for number in range(40)]
        assert {job.result(timeout=30).version for job in client.as_completed(jobs, timeout=30)} == {"2"}
        assert list(client.dead_letters.list()) == []
    assert len((installation.folder / "malformed.jsonl").read_text().splitlines()) == 1


def test_the_commands_and_examples_of_the_reference_run(
    installation: Installation, monkeypatch: pytest.MonkeyPatch
):
    installation.store_letters()
    installation.run("headrace models add mended.skops --name churn --example example.csv")
    await_version(installation, "2")
    (commands,) = blocks(REFERENCE, "sh")
    output = installation.run(commands if shutil.which("jq") else commands.replace("jq -r .id", JQ))
    assert "40 dead letters replayed" in output
    installation.store_letters()
    python, export = blocks(REFERENCE, "python")
    monkeypatch.chdir(installation.folder)
    with Client(installation.url) as client:
        names: dict[str, object] = {"client": client}
        exec(python, names)
        assert getattr(names["done"], "done") + getattr(names["done"], "id_in_use") == 40  # noqa: B009  # of type object
        exec(export, {})


#: In place of `jq -r .id`, where jq is not installed.
JQ = f"{sys.executable} -c 'import json, sys; [print(json.loads(line)[\"id\"]) for line in sys.stdin]'"


def await_version(installation: Installation, version: str) -> None:
    """Wait until the worker serves the version."""
    deadline = time.monotonic() + 60
    with Client(installation.url) as client:
        while client.contract("churn").version != version:
            assert time.monotonic() < deadline
            time.sleep(0.1)


def test_the_reference_names_every_field_reason_and_condition():
    page = REFERENCE.read_text()
    for name in (*DeadLetterWithMessage.__struct_fields__, *get_args(Reason), *DeadLetterFilter.__annotations__):
        assert f"`{name}`" in page, name
    for reason in get_args(Reason):
        assert f"`{reason}`" in HOW_TO.read_text(), reason
