"""Pods get their secrets by reference, and a changed Secret replaces them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.chart.helm import MINIMAL, Object, pod_templates, render
from tests.chart.secret_server import serve_secrets

pytestmark = pytest.mark.long

VALUES: Object = {
    **MINIMAL,
    "redis": {"caSecret": "headrace-ca"},
    "flower": {"enabled": True},
    "gateway": {"enabled": True},
    "notifier": {"enabled": True},
}
SECRETS = {
    "headrace-redis": dict.fromkeys(
        ["worker.url", "metrics.url", "flower.url", "flower.login", "gateway.url", "notifier.url"], "a"
    ),
    "headrace-ca": {"ca.pem": "a"},
    "headrace-notify": {"notify.toml": "a"},
}


def credentials(pod: Object) -> set[tuple[str, str, str]]:
    """Return the Secret, key and file of each credential that a pod mounts under /run/secrets."""
    mounted = {
        mount["name"]
        for container in pod["spec"]["containers"]
        for mount in container["volumeMounts"]
        if mount["mountPath"] == "/run/secrets"
    }
    sources = [
        source["secret"]
        for volume in pod["spec"]["volumes"]
        if volume["name"] in mounted
        for source in volume["projected"]["sources"]
    ]
    return {(secret["name"], item["key"], item["path"]) for secret in sources for item in secret["items"]}


def test_each_pod_has_the_credential_of_its_own_user_and_no_other():
    values = {**VALUES, "test": {"model": "churn", "instances": "[[1]]"}}
    ca = ("headrace-ca", "ca.pem", "ca")

    def url(user: str) -> tuple[str, str, str]:
        return ("headrace-redis", f"{user}.url", "redis_url")

    assert {owner: credentials(pod) for owner, pod in pod_templates(render(values)).items()} == {
        "Deployment/headrace-default": {url("worker"), ca},
        "Deployment/headrace-exporter": {url("metrics"), ca},
        "Deployment/headrace-flower": {url("flower"), ("headrace-redis", "flower.login", "login"), ca},
        "Deployment/headrace-gateway": {url("gateway"), ca},
        "Deployment/headrace-notifier": {url("notifier"), ("headrace-notify", "notify.toml", "notify"), ca},
        "Job/headrace-functions": {url("installer"), ca},
        "Job/headrace-publish": {url("worker"), ca},
        "Pod/headrace-test": {url("worker"), url("producer"), ca},
    }


def test_without_a_ca_none_is_mounted():
    for pod in pod_templates(render(MINIMAL)).values():
        assert not [item for item in credentials(pod) if item[2] == "ca"]


def checksums(folder: Path, changes: dict[str, dict[str, str]]) -> dict[str, Any]:
    secrets = {name: {**content, **changes.get(name, {})} for name, content in SECRETS.items()}
    with serve_secrets(secrets, folder) as kubeconfig:
        server = ["--dry-run=server", "--disable-openapi-validation", "--kubeconfig", kubeconfig]
        pods = pod_templates(render(VALUES, *server, major=3))  # Helm 4 asks the server for more than we serve
    return {
        owner: pod["metadata"]["annotations"]["checksum/secrets"]
        for owner, pod in pods.items()
        if owner.startswith("Deployment")
    }


def test_a_changed_credential_replaces_the_pods_that_read_it_at_the_next_upgrade(tmp_path: Path):
    before = checksums(tmp_path, {})
    assert before == checksums(tmp_path, {})

    def changed(changes: dict[str, dict[str, str]]) -> set[str]:
        after = checksums(tmp_path, changes)
        return {owner.removeprefix("Deployment/headrace-") for owner in before if after[owner] != before[owner]}

    assert changed({"headrace-redis": {"worker.url": "b"}}) == {"default"}
    assert changed({"headrace-redis": {"flower.login": "b"}}) == {"flower"}
    assert changed({"headrace-redis": {"gateway.url": "b"}}) == {"gateway"}
    assert changed({"headrace-redis": {"notifier.url": "b"}}) == {"notifier"}
    assert changed({"headrace-ca": {"ca.pem": "b"}}) == {"default", "exporter", "flower", "gateway", "notifier"}
    assert changed({"headrace-notify": {"notify.toml": "b"}}) == set()  # a notifier reads it again by itself
    assert changed({"headrace-redis": {"admin.url": "b"}}) == set()


@pytest.mark.parametrize("field", ["endpointsSecret", "endpointsKey"])
def test_another_secret_of_endpoints_replaces_the_notifiers(field: str):
    other = {**VALUES, "notifier": {"enabled": True, field: "other"}}
    before, after = (pod_templates(render(values))["Deployment/headrace-notifier"] for values in (VALUES, other))
    assert before != after


def test_rendering_without_a_server_leaves_the_checksum_out():
    for pod in pod_templates(render(VALUES)).values():
        assert "checksum/secrets" not in pod["metadata"].get("annotations", {})
