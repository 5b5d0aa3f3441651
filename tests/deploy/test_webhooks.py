"""The notifier of the stack tells a receiver on another network how a job ended.

Needs a Docker engine and docker-compose, as the drills.
"""

from __future__ import annotations

import json
import ssl
import subprocess
from collections.abc import Iterator

import httpx
import pytest
import yaml
from standardwebhooks.webhooks import Webhook

from tests.deploy.stack import PENGUIN, Stack

pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]

#: Prints each request as a line: its headers in lower case, and its body.
RECEIVER = """
import http.server, json
class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        print(json.dumps([{name.lower(): value for name, value in self.headers.items()}, body]), flush=True)
        self.send_response(204)
        self.end_headers()
    def log_message(self, *arguments):
        pass
http.server.HTTPServer(("0.0.0.0", 8000), Handler).serve_forever()
"""


def docker(*arguments: str) -> str:
    return subprocess.run(["docker", *arguments], capture_output=True, text=True, check=True, timeout=60).stdout


@pytest.fixture
def receiver(stack: Stack) -> Iterator[str]:
    """A receiver `receiver:8000` on the network of the notifier and Caddy, as the name of its container."""
    (caddy,) = stack.containers("caddy")
    networks = json.loads(docker("inspect", "-f", "{{json .NetworkSettings.Networks}}", caddy))
    (edge,) = [name for name in networks if name.endswith("_edge")]
    options = ["--network", edge, "--network-alias", "receiver", "--entrypoint", "python", "headrace-gateway"]
    container = docker("run", "-d", "--rm", *options, "-c", RECEIVER).strip()
    try:
        yield container
    finally:
        docker("rm", "-f", container)


def test_an_endpoint_is_told_how_a_job_ended_with_a_signature_that_verifies(stack: Stack, receiver: str) -> None:
    secret = docker("run", "--rm", "headrace-gateway", "notify", "secret").strip()
    endpoint = f'[orders]\nurl = "http://receiver:8000/hook"\nsecrets = ["{secret}"]\nallow_http = true\n'
    (stack.folder / "secrets" / "notify.toml").write_text(endpoint)
    names = {"HEADRACE_GATEWAY_NOTIFY": "orders"}
    stack("docker-compose --profile webhooks up -d --no-deps gateway notifier", env=names)
    for service in ("gateway", "notifier"):
        stack.wait_for(f"the {service} is healthy", lambda service=service: stack.healthy(service) == 1)
    key = stack("docker-compose run --rm -T operator keys add hooks --models churn --notify orders").strip()
    context = ssl.create_default_context(cafile=stack.folder / "secrets" / "ca.pem")
    job = {"model": "churn", "instances": [PENGUIN], "notify": "orders"}
    answer = httpx.put(
        f"https://localhost:{stack.https}/v1/jobs/told",
        json=job,
        headers={"Authorization": f"Bearer {key}"},
        verify=context,
        timeout=60,
    )
    assert answer.status_code == 201, answer.text
    stack.wait_for("a notice", lambda: bool(docker("logs", receiver).strip()))
    headers, body = json.loads(docker("logs", receiver).splitlines()[0])
    notice = Webhook(secret).verify(body, headers)
    assert notice["type"] == "job.success"
    assert notice["data"]["id"] == "hooks.told"


def test_of_all_services_only_caddy_and_the_notifier_are_on_a_network_with_a_way_out(stack: Stack) -> None:
    compose = yaml.safe_load((stack.folder / "docker-compose.yml").read_text())
    outside = {name for name, network in compose["networks"].items() if not (network or {}).get("internal")}
    assert outside == {"edge"}
    assert {
        name for name, service in compose["services"].items() if outside & set(service.get("networks", {}))
    } == {"caddy", "notifier"}
