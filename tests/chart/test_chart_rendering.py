"""The chart as it is linted, packaged, contained in another, and rendered by Helm 3 and 4."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml

from tests.chart.helm import CHART, MINIMAL, VALUES, Object, pick, render, render_file, run_helm, select
from tests.chart.object_checks import OBJECT_CHECKS
from tests.chart.pod_checks import POD_CHECKS
from tests.support import ROOT

pytestmark = pytest.mark.long


@pytest.mark.parametrize("major", [3, 4])
@pytest.mark.parametrize("name", VALUES)
def test_the_chart_passes_helm_lint(name: str, major: int):
    run_helm("lint", "--strict", CHART, "--values", VALUES[name], major=major)


@pytest.mark.parametrize("name", VALUES)
def test_helm_3_and_helm_4_make_the_same_objects(name: str):
    assert render(yaml.safe_load(VALUES[name].read_text()), major=3) == render_file(name)


@pytest.mark.parametrize("major", [3, 4])
def test_a_packaged_chart_makes_the_same_objects_with_alerts_and_dashboard(tmp_path: Path, major: int):
    run_helm("package", CHART, "--destination", tmp_path, major=major)
    (package,) = tmp_path.glob("headrace-*.tgz")
    objects = render(yaml.safe_load(VALUES["everything"].read_text()), chart=package, major=major)
    assert objects == render_file("everything")


def test_the_rule_has_the_alerts_of_the_deployment_and_the_config_map_its_dashboard():
    objects = render_file("everything")
    alerts = yaml.safe_load((ROOT / "deploy" / "prometheus" / "alerts.yml").read_text())
    assert pick(objects, "PrometheusRule")["spec"] == alerts
    dashboard = (ROOT / "deploy" / "grafana" / "headrace.json").read_text()
    assert json.loads(pick(objects, "ConfigMap")["data"]["headrace.json"]) == json.loads(dashboard)


def test_two_copies_of_the_chart_in_another_chart_do_not_select_the_pods_of_each_other(tmp_path: Path):
    copies = [{"name": "headrace", "alias": alias, "version": "0.1.0"} for alias in ("online", "batch")]
    chart = {"apiVersion": "v2", "name": "platform", "version": "1.0.0", "dependencies": copies}
    (tmp_path / "charts").mkdir()
    (tmp_path / "Chart.yaml").write_text(yaml.safe_dump(chart))
    shutil.copytree(CHART, tmp_path / "charts" / "headrace")
    values = {"online": dict(MINIMAL), "batch": dict(MINIMAL)}
    objects = render(values, chart=tmp_path, release="platform-in-production")
    assert [problem for check in POD_CHECKS + OBJECT_CHECKS for problem in check(objects)] == []
    assert len(select(objects, "Deployment")) == 4


def test_the_notes_name_the_classes_and_the_next_commands():
    options = ["--values", VALUES["everything"], "--namespace", "ml", "--dry-run=client"]
    notes = run_helm("install", "headrace", CHART, *options).stdout.partition("NOTES:")[2]
    assert "default: all models of the store; workers: 3 to 30, by keda\n" in notes
    assert "trial: trial; workers: 1\n" in notes
    assert "helm test headrace --namespace ml --logs\n" in notes


def test_objects_are_in_the_namespace_of_the_release():
    assert {item["metadata"]["namespace"] for item in render(MINIMAL, namespace="other")} == {"other"}


def peers(objects: list[Object], name: str, direction: str) -> list[Object]:
    return list(pick(objects, "NetworkPolicy", f"headrace-{name}")["spec"].get(direction, []))


def test_pods_reach_dns_and_redis_and_the_store_and_nothing_else():
    dns = [{"protocol": protocol, "port": port} for port in (53, 5353) for protocol in ("UDP", "TCP")]
    redis = {"ports": [{"protocol": "TCP", "port": 6380}], "to": [{"ipBlock": {"cidr": "10.0.0.0/16"}}]}
    store = {
        "ports": [{"protocol": "TCP", "port": 443}],
        "to": [{"ipBlock": {"cidr": "0.0.0.0/0", "except": ["10.0.0.0/8"]}}],
    }
    telemetry = {"to": [{"ipBlock": {"cidr": "192.0.2.7/32"}}], "ports": [{"protocol": "TCP", "port": 4318}]}
    objects = render_file("everything")
    assert peers(objects, "worker", "egress") == [{"ports": dns}, redis, store, telemetry]
    assert peers(objects, "exporter", "egress") == [{"ports": dns}, redis, store]
    assert peers(objects, "flower", "egress") == [{"ports": dns}, redis]
    assert peers(objects, "gateway", "egress") == [{"ports": dns}, redis]
    assert peers(objects, "task", "egress") == [{"ports": dns}, redis, store]


def test_the_api_of_a_gateway_is_for_its_peers_and_its_metrics_are_for_monitoring():
    api, metrics = peers(render_file("everything"), "gateway", "ingress")
    assert [port["port"] for port in api["ports"]] == [8080]
    assert api["from"] == [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "ingress"}}}]
    assert [port["port"] for port in metrics["ports"]] == [9464]
    assert [peer["podSelector"]["matchLabels"] for peer in metrics["from"]] == [{"app": "prometheus"}]


def test_a_service_leads_to_the_api_of_the_gateway_and_not_to_its_metrics():
    (port,) = pick(render_file("everything"), "Service", "headrace-gateway")["spec"]["ports"]
    assert (port["port"], port["targetPort"]) == (8080, "http")


def test_a_single_gateway_has_no_budget_which_would_hold_a_node():
    objects = render({**MINIMAL, "gateway": {"enabled": True, "replicas": 1}})
    assert select(objects, "PodDisruptionBudget", "headrace-gateway") == []


def test_a_store_on_a_volume_needs_no_way_out_but_to_redis():
    assert [rule["ports"][0]["port"] for rule in peers(render(MINIMAL), "worker", "egress")] == [53, 6379]


def test_an_empty_list_of_peers_lets_nobody_in():
    policy = {"metricsFrom": [], "flowerFrom": [], "gatewayFrom": []}
    objects = render(
        {**MINIMAL, "networkPolicy": policy, "flower": {"enabled": True}, "gateway": {"enabled": True}}
    )
    for name in ("worker", "exporter", "flower", "gateway", "task"):
        assert peers(objects, name, "ingress") == []


def test_only_monitoring_and_keda_read_metrics_by_default():
    (rule,) = peers(render(MINIMAL), "exporter", "ingress")
    names = [peer["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"] for peer in rule["from"]]
    assert names == ["monitoring", "keda"]


def test_functions_are_loaded_before_workers_start_and_contracts_are_published_after():
    jobs = [item["metadata"] for item in select(render(), "Job")]
    hooks = {metadata["name"]: metadata["annotations"]["helm.sh/hook"] for metadata in jobs}
    assert hooks == {
        "headrace-functions": "pre-install,pre-upgrade",
        "headrace-publish": "post-install,post-upgrade",
    }
    off = {"publish": {"enabled": False}, "redis": {"installFunctions": False}}
    assert select(render({**MINIMAL, **off}), "Job") == []
