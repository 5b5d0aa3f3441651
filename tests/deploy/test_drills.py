"""The stack of docker-compose.yml on a real Docker engine: started, attacked, interrupted and changed under load.

    make deploy-test

Needs a Docker engine and docker-compose. Removes the stack at the end, also after a failure.
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

from tests.deploy.stack import PENGUIN, ROOT, Stack, check_all_succeeded, readme_commands

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]

#: The size limit of each image beyond its base image, in MB, from deploy/README.md.
SIZES = {
    image: float(limit)
    for image, limit in re.findall(
        r"^\| `([\w-]+)` \| \d+ MB \| (\d+) MB \|$", (ROOT / "deploy" / "README.md").read_text(), re.MULTILINE
    )
}

#: Commands a worker tries at its start and does not need, see docs/reference/acl.md: CONFIG GET shows passwords.
OPTIONAL_COMMANDS = {"config|get", "client|setinfo"}


def sh(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout


def inspect(container: str) -> dict[str, Any]:
    (description,) = json.loads(sh("docker", "inspect", container))
    return dict(description)


# --- started -------------------------------------------------------------------------------------------


def test_the_five_commands_of_the_readme_predict_a_csv_as_a_producer(
    stack: Stack, model: Pipeline, table: pd.DataFrame
):
    assert len(readme_commands()) == 5
    stack(readme_commands()[-1])
    with (stack.folder / "predicted.csv").open() as predicted:
        predictions = [row["prediction"] for row in csv.DictReader(predicted)]
    assert predictions == list(model.predict(table))
    script = "import os; print(os.listdir('/run/secrets'), open('/run/secrets/redis_url').read().split(':')[1])"
    assert stack.python(script).strip() in (
        "['ca', 'redis_url'] //producer",
        "['redis_url', 'ca'] //producer",
    )


def test_make_secrets_keeps_existing_files(stack: Stack):
    folder = stack.folder / "secrets"
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    stack("make secrets")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert folder.stat().st_mode & 0o777 == 0o700
    assert (folder / "ca.key").stat().st_mode & 0o777 == 0o600


def test_the_documentation_has_the_size_of_each_image():
    assert set(SIZES) == {"headrace", "headrace-worker", "headrace-flower", "headrace-gateway"}


@pytest.mark.parametrize("image", SIZES)
def test_an_image_is_small_and_lists_its_packages(image: str, stack: Stack):
    layers = sh("docker", "history", "--format", "{{.Size}} {{.CreatedBy}}", "--no-trunc", "--human=false", image)
    added_mb = sum(int(line.split()[0]) for line in layers.splitlines() if "/opt/headrace" in line) / 1e6
    print(f"{image}: {added_mb:.0f} MB")
    assert 0 < added_mb <= SIZES[image]
    run = ("docker", "run", "--rm", "--network", "none", "--entrypoint", "sh", image, "-c")
    sbom = json.loads(sh(*run, "cat /opt/headrace/sbom.json"))
    packages = {component["name"].lower() for component in sbom["components"]}
    assert {"headrace", "celery", "libc6"} <= packages
    assert ("flower" in packages) == (image == "headrace-flower")
    assert ("onnxruntime" in packages) == (image == "headrace-worker")
    assert ("starlette" in packages) == (image == "headrace-gateway")
    assert ("scikit-learn" in packages) == (image in ("headrace-worker", "headrace-flower"))
    assert sh(*run, "command -v gcc cc make; ls /opt/headrace/bin | grep -c ^pip || true").strip() == "0"


# --- secured -----------------------------------------------------------------------------------------


def test_only_caddy_publishes_ports(stack: Stack):
    published = {}
    for container in stack.containers():
        description = inspect(container)
        ports = [port for port, bound in description["NetworkSettings"]["Ports"].items() if bound]
        published[description["Config"]["Labels"]["com.docker.compose.service"]] = ports
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
    with socket.socket() as probe:
        print("closed" if probe.connect_ex(("redis", port)) else "open")
"""
    assert stack.python(plain).split() == ["refused", "closed", "closed", "closed"]
    response = sh(
        "curl", "-s", "-o", "/dev/null", "-w", "%{http_code} %{redirect_url}", f"http://localhost:{stack.http}/x"
    )
    assert response == f"301 https://localhost:{stack.https}/x"


def test_a_client_without_the_ca_does_not_connect(stack: Stack):
    without_ca = """
import redis
from pathlib import Path
url = Path("/run/secrets/redis_url").read_text().partition("?")[0]
try:
    redis.Redis.from_url(url, retry=None).ping()
except redis.ConnectionError as error:
    print("CERTIFICATE_VERIFY_FAILED" in str(error))
"""
    assert stack.python(without_ca).strip() == "True"


def test_the_credential_of_a_producer_permits_nothing_that_a_producer_does_not_need(stack: Stack):
    attempts = """
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
        print("PERMITTED:", *command)
    except redis.ResponseError as error:
        refusals = ("permission", "ACL", "can't run", "not allowed")
        assert any(refusal in str(error) for refusal in refusals), (command, error)
print("completed")
"""
    assert stack.python(attempts).strip() == "completed"


def test_flower_requires_a_login_for_every_page(stack: Stack):
    stack.wait_for("Flower answers", lambda: stack.get("/workers", login=True) == 200)
    assert stack.get("/", login=False) == 401
    assert stack.get("/api/workers", login=False) == 401
    assert stack.get("/metrics", login=False) == stack.get("/healthcheck", login=False) == 404
    foreign = {"Sec-Fetch-Site": "cross-site"}
    assert stack.get("/api/worker/shutdown/x", login=True, method="POST", headers=foreign) == 403


def test_every_container_is_confined(stack: Stack):
    for container in stack.containers():
        description = inspect(container)
        host, service = description["HostConfig"], description["Config"]["Labels"]["com.docker.compose.service"]
        assert host["ReadonlyRootfs"], service
        assert host["CapDrop"] == ["ALL"], service
        assert host["SecurityOpt"] == ["no-new-privileges:true"], service
        assert host["Memory"] == host["MemorySwap"] > 0, service
        assert host["PidsLimit"] > 0, service
        attempt = subprocess.run(
            ["docker", "exec", container, "sh", "-c", "id -u; touch /new || touch /models/new"],
            capture_output=True,
            text=True,
        )
        assert attempt.stdout.strip() not in ("", "0"), service
        assert attempt.returncode != 0, service


def test_a_worker_cannot_connect_to_the_internet(stack: Stack):
    script = "import socket; s = socket.socket(); s.settimeout(3); print(s.connect_ex(('1.1.1.1', 443)))"
    (worker, *_) = stack.containers("worker")
    assert sh("docker", "exec", worker, "python", "-c", script).strip() != "0"


def test_no_redis_user_of_the_stack_lacks_a_permission(stack: Stack):
    stack.wait_for("Flower answers", lambda: stack.get("/workers", login=True) == 200)
    log = stack.redis("--json ACL LOG 128")
    refused = {
        (entry["username"], entry["object"])
        for entry in json.loads(log)
        if entry["username"] in ("flower", "gateway", "worker") and entry["object"] not in OPTIONAL_COMMANDS
    }
    # The gateway may not delete outcomes: those of a file sent to `:batch`, as another test does, expire.
    assert not refused - {("gateway", "del")}, log


def test_workers_log_no_finding_for_this_redis(stack: Stack):
    log = stack("docker-compose logs --no-color worker")
    assert " ready." in log
    # The wording of `headrace.doctor.finding.Finding`.
    assert [line for line in log.splitlines() if ", should be " in line] == []


def test_the_functions_are_loaded_and_nobody_runs_a_script(stack: Stack):
    loaded = stack("docker-compose run --rm -T functions redis install --json")
    changes = json.loads(loaded)
    assert (changes["added"], changes["replaced"]) == ([], [])
    assert len(changes["present"]) > 20
    stats = stack.redis("INFO commandstats")
    called = dict(re.findall(r"cmdstat_(\w+):calls=(\d+)", stats))
    assert int(called["fcall"]) > 0
    assert not {"eval", "evalsha"} & {name for name, calls in called.items() if int(calls)}


# --- changed under load -----------------------------------------------------------------------------


def test_a_killed_and_restarted_redis_loses_no_confirmed_job(stack: Stack):
    with stack.load("churn", PENGUIN, 15) as load:
        time.sleep(5)  # into the middle of the load
        (redis,) = stack.containers("redis")
        sh("docker", "kill", "--signal", "KILL", redis)
        sh("docker", "start", redis)
        report = load.result(timeout=180)
    check_all_succeeded(report)


def test_jobs_spread_over_three_workers_and_a_rolling_restart_loses_no_job(stack: Stack):
    def has_run_jobs(container: str) -> bool:
        name = f"celery@{container[:12]}"
        command = ["celery", "-A", "headrace_worker", "inspect", "stats", "--json", "--timeout", "20", "-d", name]
        stats = subprocess.run(["docker", "exec", container, *command], capture_output=True, text=True, timeout=60)
        return bool(json.loads(stats.stdout)[name]["total"]) if stats.returncode == 0 else False

    stack("docker-compose up -d --no-deps --scale worker=3 worker")
    stack.wait_for("three workers are ready", lambda: stack.healthy() == 3)
    before = stack.containers("worker")
    with stack.load("churn", PENGUIN, 60) as load:
        stack.wait_for("all three ran jobs", lambda: all(has_run_jobs(container) for container in before))
        stack("deploy/roll.sh")
        assert not set(before) & set(stack.containers("worker"))
        assert stack.healthy() == 3
        report = load.result(timeout=180)
    check_all_succeeded(report)
