"""Real Celery clients in other languages, and the real packages of serializers and compressions.

`make compat` runs these tests, with the packages of PyPI and npm in .compat/.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from celery import Celery
from kombu import compression, serialization

from tests.support import ROOT
from tests.support.foreign_clients import (
    COMPRESSIONS,
    MODEL,
    QUEUE,
    READ_COMPRESSIONS,
    SERIALIZERS,
    is_dead_letter,
    send,
)
from tests.support.served_worker import Site, server, shared, store

__all__ = ["server", "shared", "store"]

pytestmark = pytest.mark.long

NODE = ROOT / ".compat" / "node"
#: Sends jobs with celery-node, and prints each outcome as a line of JSON.
SCRIPT = """
const celery = require('celery-node');
const [url, queue, model, protocol] = process.argv.slice(2);
const client = celery.createClient(url, url, queue);
client.conf.TASK_PROTOCOL = Number(protocol);
const send = async (name, args) => {
  try { return {result: await client.createTask(name).applyAsync(args).get(30000)}; }
  catch (error) { return {state: error.message, type: error.exc_type, text: String(error.exc_message)}; }
};
(async () => {
  const calls = [['headrace.predict', [model, [[1, 0, 0]]]], ['headrace.predict', [model, [['x', 0, 0]]]],
                 ['headrace.predcit', [model, [[1, 0, 0]]]]];
  for (const [name, args] of calls) console.log(JSON.stringify(await send(name, args)));
  process.exit(0);
})();
"""


@pytest.fixture(scope="session")
def node() -> Path:
    """Return a folder with celery-node, installed from npm."""
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("npm is not installed")
    if not (NODE / "node_modules" / "celery-node").exists():
        NODE.mkdir(parents=True, exist_ok=True)
        subprocess.run(
            [npm, "install", "--no-audit", "--no-fund", "--silent", "celery-node@0.5.9"], cwd=NODE, check=True
        )
    (NODE / "send.js").write_text(SCRIPT)
    return NODE


@pytest.mark.parametrize("protocol", ["1", "2"])
def test_celery_node_gets_its_outcomes(node: Path, shared: Site, protocol: str) -> None:
    result = subprocess.run(
        ["node", "send.js", shared.url, QUEUE, MODEL, protocol],
        cwd=node,
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 0, result.stderr
    predicted, refused, mistyped = map(json.loads, result.stdout.splitlines())
    assert predicted == {"result": {"model": MODEL, "version": "1", "predictions": [2]}}
    assert (refused["state"], refused["type"]) == ("FAILURE", "InvalidInput")
    assert "must be a number, got a string" in refused["text"]
    assert (mistyped["state"], mistyped["type"]) == ("FAILURE", "InvalidInput")
    assert "the name of the task is 'headrace.predcit'" in mistyped["text"]


@pytest.fixture
def apps(shared: Site) -> Iterator[list[Celery[Any]]]:
    """A Celery app of each protocol."""
    with (
        Celery(broker=shared.url, backend=shared.url, task_protocol=1) as first,
        Celery(broker=shared.url, backend=shared.url, task_protocol=2) as second,
    ):
        yield [first, second]


def test_the_real_packages_of_all_serializers_and_compressions(
    apps: list[Celery[Any]], server: redis.Redis
) -> None:
    for name in SERIALIZERS:
        serialization.dumps({}, serializer=name)
    for name in filter(None, COMPRESSIONS):
        compression.get_encoder(name)
    forms = list(itertools.product(apps, SERIALIZERS, COMPRESSIONS))
    results = [
        send(app, number, serializer=serializer, compression=name)
        for number, (app, serializer, name) in enumerate(forms)
    ]
    for number, ((_, serializer, name), result) in enumerate(zip(forms, results, strict=True)):
        value = result.get(timeout=60, propagate=False)
        if serializer == "json" and name in READ_COMPRESSIONS:
            assert value["predictions"] == [2 * number]
        else:
            assert result.state == "FAILURE"
            assert is_dead_letter(server, result.id)
