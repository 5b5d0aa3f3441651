"""The stack of docker-compose.yml on a real Docker engine: up from nothing, attacked, cut, and changed under load.

    make deploy-test

Needs a Docker engine and docker-compose. Takes everything down again, whatever happens.
"""

from __future__ import annotations

import csv
import json
import re
import subprocess
import time
from typing import Any

import pandas as pd
import pytest
from sklearn.pipeline import Pipeline

from tests.deploy.stack import PENGUIN, ROOT, Stack, all_succeeded, readme_commands

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]

#: The images, and what each may add to its base image, in MB, as deploy/README.md says.
SIZES = {
    image: float(most)
    for image, most in re.findall(
        r"^\| `([\w-]+)` \| \d+ MB \| (\d+) MB \|$", (ROOT / "deploy" / "README.md").read_text(), re.MULTILINE
    )
}

#: What a worker asks for at its start and does without, as docs/reference/acl.md says: CONFIG GET tells passwords.
DONE_WITHOUT = {"config|get", "client|setinfo"}


def sh(*words: str) -> str:
    return subprocess.run(words, capture_output=True, text=True, check=True, timeout=60).stdout


def inspect(container: str) -> dict[str, Any]:
    (told,) = json.loads(sh("docker", "inspect", container))
    return dict(told)


# --- up from nothing -------------------------------------------------------------------------------


def test_five_commands_of_the_readme_predict_a_csv_with_the_credential_of_a_producer(
    stack: Stack, model: Pipeline, table: pd.DataFrame
):
    assert len(readme_commands()) == 5
    stack(readme_commands()[-1])
    with (stack.folder / "predicted.csv").open() as predicted:
        answers = [row["prediction"] for row in csv.DictReader(predicted)]
    assert answers == list(model.predict(table))
    look = "import os; print(os.listdir('/run/secrets'), open('/run/secrets/redis_url').read().split(':')[1])"
    assert stack.python(look).strip() in (
        "['ca', 'redis_url'] //producer",
        "['redis_url', 'ca'] //producer",
    )


def test_make_secrets_keeps_what_is_there(stack: Stack):
    folder = stack.folder / "secrets"
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    stack("make secrets")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert folder.stat().st_mode & 0o777 == 0o700
    assert (folder / "ca.key").stat().st_mode & 0o777 == 0o600


def test_the_size_of_each_image_is_said():
    assert set(SIZES) == {"headrace", "headrace-worker", "headrace-flower"}


@pytest.mark.parametrize("image", SIZES)
def test_an_image_is_slim_and_says_what_it_holds(image: str, stack: Stack):
    layers = sh("docker", "history", "--format", "{{.Size}} {{.CreatedBy}}", "--no-trunc", "--human=false", image)
    ours = sum(int(line.split()[0]) for line in layers.splitlines() if "/opt/headrace" in line) / 1e6
    print(f"{image}: {ours:.0f} MB")
    assert 0 < ours <= SIZES[image]
    run = ("docker", "run", "--rm", "--network", "none", "--entrypoint", "sh", image, "-c")
    sbom = json.loads(sh(*run, "cat /opt/headrace/sbom.json"))
    found = {component["name"].lower() for component in sbom["components"]}
    assert {"headrace", "celery", "libc6"} <= found
    assert ("flower" in found) == (image == "headrace-flower")
    assert ("onnxruntime" in found) == (image == "headrace-worker")
    assert sh(*run, "command -v gcc cc make; ls /opt/headrace/bin | grep -c ^pip || true").strip() == "0"


# --- secured -----------------------------------------------------------------------------------------


def test_nothing_but_caddy_is_published(stack: Stack):
    published = {}
    for container in stack.containers():
        told = inspect(container)
        ports = [port for port, bound in told["NetworkSettings"]["Ports"].items() if bound]
        published[told["Config"]["Labels"]["com.docker.compose.service"]] = ports
    assert {service for service, ports in published.items() if ports} == {"caddy"}
    assert sorted(published["caddy"]) == ["8080/tcp", "8443/tcp"]


def test_plaintext_is_refused_on_every_port(stack: Stack):
    plain = """
import redis, socket
try:
    redis.Redis("redis", 6379, retry=None).ping()
except redis.RedisError as error:
    print("refused")
for port in (6378, 6380, 16379):
    with socket.socket() as tried:
        print("closed" if tried.connect_ex(("redis", port)) else "open")
"""
    assert stack.python(plain).split() == ["refused", "closed", "closed", "closed"]
    told = sh(
        "curl", "-s", "-o", "/dev/null", "-w", "%{http_code} %{redirect_url}", f"http://localhost:{stack.http}/x"
    )
    assert told == f"301 https://localhost:{stack.https}/x"


def test_a_stranger_to_the_certificate_is_not_talked_to(stack: Stack):
    trusts_none = """
import redis
from pathlib import Path
url = Path("/run/secrets/redis_url").read_text().partition("?")[0]
try:
    redis.Redis.from_url(url, retry=None).ping()
except redis.ConnectionError as error:
    print("CERTIFICATE_VERIFY_FAILED" in str(error))
"""
    assert stack.python(trusts_none).strip() == "True"


def test_a_stolen_credential_of_a_producer_opens_no_more_than_a_producer_needs(stack: Stack):
    tries = """
import redis
from pathlib import Path
r = redis.Redis.from_url(Path("/run/secrets/redis_url").read_text(), retry=None)
for command in (
    ("RPOP", "predict.churn"), ("LRANGE", "predict.churn", 0, -1), ("KEYS", "*"), ("SCAN", 0), ("FLUSHALL",),
    ("CONFIG", "GET", "*"), ("ACL", "LIST"), ("CLIENT", "LIST"), ("GET", "another-application"),
    ("EVAL", "return redis.call('RPOP', KEYS[1])", 1, "predict.churn"),
    ("EVAL", "return redis.call('KEYS', '*')", 0), ("FUNCTION", "LIST"), ("SHUTDOWN",), ("DEBUG", "SLEEP", 0),
    ("HGETALL", "headrace:dead"), ("PUBLISH", "/0.celery.pidbox", "x"), ("PSUBSCRIBE", "*"), ("MONITOR",),
):
    try:
        r.execute_command(*command)
        print("MAY:", *command)
    except redis.ResponseError as error:
        known = ("permission", "ACL", "can't run", "not allowed")
        assert any(word in str(error) for word in known), (command, error)
print("done")
"""
    assert stack.python(tries).strip() == "done"


def test_flower_asks_for_a_login_and_tells_the_public_nothing(stack: Stack):
    stack.wait_for("Flower answers", lambda: stack.get("/workers", login=True) == 200)
    assert stack.get("/", login=False) == 401
    assert stack.get("/api/workers", login=False) == 401
    assert stack.get("/metrics", login=False) == stack.get("/healthcheck", login=False) == 404
    foreign = {"Sec-Fetch-Site": "cross-site"}
    assert stack.get("/api/worker/shutdown/x", login=True, method="POST", headers=foreign) == 403


def test_every_container_is_held(stack: Stack):
    for container in stack.containers():
        told = inspect(container)
        host, service = told["HostConfig"], told["Config"]["Labels"]["com.docker.compose.service"]
        assert host["ReadonlyRootfs"], service
        assert host["CapDrop"] == ["ALL"], service
        assert host["SecurityOpt"] == ["no-new-privileges:true"], service
        assert host["Memory"] == host["MemorySwap"] > 0, service
        assert host["PidsLimit"] > 0, service
        tried = subprocess.run(
            ["docker", "exec", container, "sh", "-c", "id -u; touch /mine || touch /models/mine"],
            capture_output=True,
            text=True,
        )
        assert tried.stdout.strip() not in ("", "0"), service
        assert tried.returncode != 0, service


def test_who_gets_into_a_worker_cannot_call_home(stack: Stack):
    call = "import socket; s = socket.socket(); s.settimeout(3); print(s.connect_ex(('1.1.1.1', 443)))"
    (worker, *_) = stack.containers("worker")
    assert sh("docker", "exec", worker, "python", "-c", call).strip() != "0"


def test_no_user_of_the_stack_lacks_what_it_needs(stack: Stack):
    stack.wait_for("Flower answers", lambda: stack.get("/workers", login=True) == 200)
    told = stack.redis("--json ACL LOG 128")
    refused = {
        (entry["username"], entry["object"])
        for entry in json.loads(told)
        if entry["username"] in ("flower", "worker") and entry["object"] not in DONE_WITHOUT
    }
    assert not refused, told


def test_workers_find_nothing_wrong_with_this_redis(stack: Stack):
    told = stack("docker-compose logs --no-color worker")
    assert " ready." in told
    # As `headrace.doctor.redis` words it: of the version, eviction, memory, persistence and replicas.
    assert [line for line in told.splitlines() if ", should be " in line] == []


# --- changed under load -----------------------------------------------------------------------------


def test_redis_killed_and_restarted_loses_nothing_confirmed(stack: Stack):
    with stack.load("churn", PENGUIN, 15) as load:
        time.sleep(5)  # not a wait for anything: the kill is to come in the middle
        (redis,) = stack.containers("redis")
        sh("docker", "kill", "--signal", "KILL", redis)
        sh("docker", "start", redis)
        told = load.result(timeout=180)
    all_succeeded(told)


def test_jobs_spread_over_three_workers_and_a_rolling_restart_loses_none(stack: Stack):
    def has_run_jobs(container: str) -> bool:
        name = f"celery@{container[:12]}"
        ask = ["celery", "-A", "headrace_worker", "inspect", "stats", "--json", "--timeout", "20", "-d", name]
        told = subprocess.run(["docker", "exec", container, *ask], capture_output=True, text=True, timeout=60)
        return bool(json.loads(told.stdout)[name]["total"]) if told.returncode == 0 else False

    stack("docker-compose up -d --no-deps --scale worker=3 worker")
    stack.wait_for("three workers are ready", lambda: stack.healthy() == 3)
    before = stack.containers("worker")
    with stack.load("churn", PENGUIN, 60) as load:
        stack.wait_for("all three ran jobs", lambda: all(has_run_jobs(one) for one in before))
        stack("deploy/roll.sh")
        assert not set(before) & set(stack.containers("worker"))
        assert stack.healthy() == 3
        told = load.result(timeout=180)
    all_succeeded(told)
