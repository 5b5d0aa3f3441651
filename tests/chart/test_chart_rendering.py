"""The chart as it is linted, packaged, contained in another, and rendered by Helm 3 and 4."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml

from headrace_gateway import metrics as request_metrics
from headrace_gateway.notify import metrics as notify_metrics
from headrace_worker.process import monitoring
from headrace_worker.telemetry import metrics as telemetry
from headrace_worker.telemetry import queue_metrics
from tests.chart.helm import (
    CHART,
    MINIMAL,
    VALUES,
    Object,
    pick,
    pod_templates,
    render,
    render_file,
    run_helm,
    select,
)
from tests.chart.object_checks import OBJECT_CHECKS
from tests.chart.pod_checks import POD_CHECKS
from tests.support import ROOT

#: A metric, as its package declares it.
Labelled = telemetry.Metric | request_metrics.Metric

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
    assert "from the Secret webhooks, key endpoints.toml, also after a change.\n" in notes
    assert "may name these endpoints: none (gateway.settings.HEADRACE_GATEWAY_NOTIFY)\n" in notes


def test_objects_are_in_the_namespace_of_the_release():
    assert {item["metadata"]["namespace"] for item in render(MINIMAL, namespace="other")} == {"other"}


#: The components of a release, by the names of their policies.
COMPONENTS = ("worker", "exporter", "flower", "gateway", "notifier", "task")
#: Where Redis is.
REDIS = [{"ipBlock": {"cidr": "10.0.0.0/16"}}]


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
    endpoints = {"ports": [{"protocol": "TCP", "port": 3128}], "to": [{"ipBlock": {"cidr": "10.9.0.7/32"}}]}
    assert peers(objects, "notifier", "egress") == [{"ports": dns}, redis, endpoints]


def test_a_notifier_reaches_endpoints_anywhere_by_https_and_no_other_pod_does():
    everything = {"gateway": {"enabled": True}, "flower": {"enabled": True}, "notifier": {"enabled": True}}
    objects = render({**MINIMAL, **everything, "networkPolicy": {"redis": {"to": REDIS}}})
    out = {"ports": [{"protocol": "TCP", "port": 443}]}
    by_name = {name: peers(objects, name, "egress") for name in COMPONENTS}
    assert {name for name, rules in by_name.items() if out in rules} == {"notifier"}
    assert {name for name, rules in by_name.items() if len(rules) != 2} == {"notifier"}  # DNS and Redis


def test_prometheus_scrapes_workers_gateways_and_notifiers():
    monitors = select(render_file("everything"), "PodMonitor")
    names = {item["spec"]["selector"]["matchLabels"]["app.kubernetes.io/component"] for item in monitors}
    assert names == {"worker", "gateway", "notifier"}


def test_no_label_of_a_metric_is_replaced_by_one_of_the_prometheus_operator():
    metrics: dict[str, tuple[Labelled, ...]] = {
        "worker": monitoring.METRICS,
        "exporter": queue_metrics.METRICS,
        "gateway": request_metrics.METRICS,
        "notifier": notify_metrics.METRICS,
    }
    honoured = {}
    for kind in ("PodMonitor", "ServiceMonitor"):
        for item in select(render_file("everything"), kind):
            component = item["spec"]["selector"]["matchLabels"]["app.kubernetes.io/component"]
            (endpoint,) = item["spec"].get("podMetricsEndpoints") or item["spec"]["endpoints"]
            honoured[component] = endpoint.get("honorLabels", False)
    operator = {"namespace", "pod", "container", "endpoint", "service", "job", "instance"}
    assert honoured == {
        name: any(operator & set(metric.labels) for metric in declared) for name, declared in metrics.items()
    }


def test_only_monitoring_reaches_a_notifier():
    (metrics,) = peers(render_file("everything"), "notifier", "ingress")
    assert [port["port"] for port in metrics["ports"]] == [9467]
    assert [peer["podSelector"]["matchLabels"] for peer in metrics["from"]] == [{"app": "prometheus"}]
    services = select(render_file("everything"), "Service")
    assert "notifier" not in {service["spec"]["selector"]["app.kubernetes.io/component"] for service in services}


def test_a_notifier_has_no_role_no_store_and_no_disk():
    objects = render_file("everything")
    (pod,) = [item for name, item in pod_templates(objects).items() if name.endswith("/headrace-notifier")]
    account = pick(objects, "ServiceAccount", pod["spec"]["serviceAccountName"])
    assert "eks.amazonaws.com/role-arn" in pick(objects, "ServiceAccount", "headrace")["metadata"]["annotations"]
    assert account["metadata"]["annotations"] == {"example.com/owner": "ml"}
    assert [volume for volume in pod["spec"]["volumes"] if "projected" not in volume] == [
        {"name": "tmp", "emptyDir": {"medium": "Memory", "sizeLimit": "16Mi"}}
    ]
    (container,) = pod["spec"]["containers"]
    assert not [item["name"] for item in container["env"] if item["name"].startswith(("AWS", "HEADRACE_MODEL"))]
    assert [mount["name"] for mount in container["volumeMounts"] if not mount.get("readOnly")] == ["tmp"]


def test_notifiers_are_spread_and_budgeted_and_run_the_image_of_the_gateway():
    objects = render_file("everything")
    deployment = pick(objects, "Deployment", "headrace-notifier")["spec"]
    spread = deployment["template"]["spec"]["topologySpreadConstraints"]
    assert [item["topologyKey"] for item in spread] == ["kubernetes.io/hostname", "topology.kubernetes.io/zone"]
    assert pick(objects, "PodDisruptionBudget", "headrace-notifier")["spec"]["maxUnavailable"] == 1
    images = [
        pick(objects, "Deployment", f"headrace-{name}")["spec"]["template"]["spec"]["containers"][0]["image"]
        for name in ("gateway", "notifier")
    ]
    assert images == ["registry.example/ml/headrace-gateway:1.10"] * 2
    single = render({**MINIMAL, "notifier": {"enabled": True, "replicas": 1}})
    assert select(single, "PodDisruptionBudget", "headrace-notifier") == []


def test_no_notifier_runs_unless_it_is_enabled():
    objects = render({**MINIMAL, "gateway": {"enabled": True}, "monitoring": {"podMonitor": True}})
    assert [item["kind"] for item in objects if item["metadata"]["name"].endswith("notifier")] == []


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
    enabled = {name: {"enabled": True} for name in ("flower", "gateway", "notifier")}
    objects = render({**MINIMAL, **enabled, "networkPolicy": policy})
    for name in COMPONENTS:
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
