"""Values that the chart refuses, with the error a user reads, and unusual ones that it takes."""

from __future__ import annotations

import shutil
from typing import Any

import pytest
import yaml

from headrace_gateway.notify.settings import NotifySettings
from headrace_gateway.settings import GatewaySettings
from headrace_worker.settings import WorkerSettings
from tests.chart.fields import quantity
from tests.chart.helm import CHART, MINIMAL, Object, RenderError, pick, render, select
from tests.chart.object_checks import OBJECT_CHECKS
from tests.chart.schemas import find_errors, is_custom

pytestmark = pytest.mark.long


def with_class(**fields: Any) -> Object:
    return {**MINIMAL, "workers": {"forest": fields}}


REFUSED: list[tuple[Object, str]] = [
    # Types.
    (with_class(replicas="2"), "/workers/forest/replicas.*got string, want integer"),
    (with_class(replicas=1.5), "/workers/forest/replicas.*got number, want integer"),
    (with_class(concurrency="2"), "/workers/forest/concurrency.*got string, want integer"),
    (with_class(serve="tumour"), "/workers/forest/serve.*got string, want array"),
    (with_class(serve=["a,b"]), "/workers/forest/serve/0.*does not match pattern"),
    (with_class(drain="25s"), "/workers/forest/drain.*got string, want number"),
    (with_class(memory=2147483648), "/workers/forest/memory.*got number, want string"),
    (with_class(trust={"pickle": "yes"}), "/workers/forest/trust/pickle.*got string, want boolean"),
    (with_class(podLabels={"tier": 2}), "/workers/forest/podLabels/tier.*got number, want string"),
    (with_class(tolerations={"key": "a"}), "/workers/forest/tolerations.*got object, want array"),
    ({**MINIMAL, "image": {"tag": 1.10}}, "/image/tag.*got number, want string"),
    ({**MINIMAL, "networkPolicy": {"redis": {"ports": ["6379"]}}}, "ports/0.*got string, want integer"),
    ({**MINIMAL, "test": {"model": "churn", "instances": [{"a": 1}]}}, "/test/instances.*got array, want string"),
    ({**MINIMAL, "workers": [{"name": "forest"}]}, "/workers"),
    # Quantities and ranges.
    (with_class(memory="2 GB"), "/workers/forest/memory.*does not match pattern"),
    (with_class(memory="2g"), "/workers/forest/memory.*does not match pattern"),
    (with_class(memory="2"), "/workers/forest/memory.*does not match pattern"),
    (with_class(cpu="two"), "/workers/forest/cpu.*does not match pattern"),
    (with_class(cpu=0), "/workers/forest/cpu.*exclusiveMinimum"),
    (with_class(drain=-1), "/workers/forest/drain.*minimum: got -1, want 0"),
    (with_class(concurrency=0), "/workers/forest/concurrency.*minimum"),
    (with_class(scale={"by": "keda", "jobsPerReplica": 0}), "/scale/jobsPerReplica.*minimum"),
    (with_class(scale={"by": "KEDA"}), "/scale/by.*must be one of 'none', 'keda', 'hpa'"),
    # Unknown names.
    (with_class(memroy="2Gi"), "/workers/forest.*'memroy' not allowed"),
    (with_class(scale={"by": "keda", "maximum": 3}), "/workers/forest/scale.*'maximum' not allowed"),
    (with_class(resources={"limits": {}}), "/workers/forest.*'resources' not allowed"),
    (with_class(settings={"HEADRACE_CLAIM_JOB": 5}), "/workers/forest/settings.*'HEADRACE_CLAIM_JOB' not allowed"),
    (with_class(settings={"HEADRACE_DRAIN": 5}), "/workers/forest/settings.*'HEADRACE_DRAIN' not allowed"),
    ({**MINIMAL, "worker": {}}, "'worker' not allowed"),
    ({**MINIMAL, "replicaCount": 2}, "'replicaCount' not allowed"),
    ({**MINIMAL, "gateway": {"open": True}}, "/gateway.*'open' not allowed"),
    ({**MINIMAL, "gateway": {"replicas": 0}}, "/gateway/replicas.*minimum: got 0, want 1"),
    (
        {**MINIMAL, "gateway": {"settings": {"HEADRACE_GATEWAY_OPEN": True}}},
        "/gateway/settings.*'HEADRACE_GATEWAY_OPEN' not allowed",
    ),
    ({**MINIMAL, "notifier": {"replicas": 0}}, "/notifier/replicas.*minimum: got 0, want 1"),
    ({**MINIMAL, "notifier": {"timeout": 0}}, "/notifier/timeout.*exclusiveMinimum: got 0, want 0"),
    ({**MINIMAL, "notifier": {"timeout": "15s"}}, "/notifier/timeout.*got string, want number"),
    ({**MINIMAL, "notifier": {"image": {"tag": "1"}}}, "/notifier.*'image' not allowed"),
    ({**MINIMAL, "notifier": {"endpointsSecret": ""}}, "/notifier/endpointsSecret.*does not match pattern"),
    (
        {**MINIMAL, "notifier": {"settings": {"HEADRACE_NOTIFY": "[orders]"}}},
        "/notifier/settings.*'HEADRACE_NOTIFY' not allowed",
    ),
    ({**MINIMAL, "networkPolicy": {"endpoints": {"ports": []}}}, "/networkPolicy/endpoints/ports.*minItems"),
    ({**MINIMAL, "image": {"repository": "headrace-worker:1"}}, "/image/repository.*does not match pattern"),
    ({**MINIMAL, "image": {"digest": "abc"}}, "/image/digest.*does not match pattern"),
    # Names that Kubernetes refuses, or that the chart needs itself.
    ({**MINIMAL, "workers": {"Forest": {}}}, "/workers.*'Forest' not allowed"),
    ({**MINIMAL, "workers": {"a_b": {}}}, "/workers.*'a_b' not allowed"),
    ({**MINIMAL, "workers": {"a" * 21: {}}}, "/workers.*not allowed"),
    *(
        ({**MINIMAL, "workers": {name: {}}}, f"/workers/{name}")
        for name in ("exporter", "flower", "gateway", "notifier")
    ),
    ({**MINIMAL, "labels": {"app.kubernetes.io/name": "a"}}, "app.kubernetes.io/name"),
    ({**MINIMAL, "labels": {"team": "a b"}}, "/labels/team.*does not match pattern"),
    ({**MINIMAL, "fullnameOverride": "a" * 26}, "/fullnameOverride.*maxLength"),
    # Passwords.
    ({**MINIMAL, "redis": {"password": "hunter2"}}, "/redis.*'password' not allowed"),
    ({**MINIMAL, "redis": {"url": "rediss://worker:hunter2@redis"}}, "/redis.*'url' not allowed"),
    (
        {**MINIMAL, "redis": {"urlSecret": "rediss://worker:hunter2@redis"}},
        "/redis/urlSecret.*does not match pattern",
    ),
    ({"models": {"url": "s3://key:hunter2@bucket"}}, "/models/url.*does not match pattern"),
    (
        {**MINIMAL, "notifier": {"settings": {"HTTPS_PROXY": "http://user:hunter2@proxy:3128"}}},
        "/notifier/settings/HTTPS_PROXY.*does not match pattern",
    ),
    (with_class(settings={"HEADRACE_REDIS_URL": "redis://"}), "'HEADRACE_REDIS_URL' not allowed"),
    (with_class(settings={"HEADRACE_JOB_KEYS": "a:hunter2"}), "'HEADRACE_JOB_KEYS' not allowed"),
    (
        with_class(settingsFromSecret={"HEADRACE_JOB_KEYS": "hunter2"}),
        "HEADRACE_JOB_KEYS.*got string, want object",
    ),
    # Names without a value, which in YAML take the default away.
    ({**MINIMAL, "monitoring": None}, "missing property 'monitoring'"),
    ({**MINIMAL, "gateway": None}, "missing property 'gateway'"),
    ({**MINIMAL, "notifier": None}, "missing property 'notifier'"),
    ({**MINIMAL, "redis": {"caSecret": None}}, "/redis.*missing property 'caSecret'"),
    ({**MINIMAL, "workerDefaults": {"scale": {"min": None}}}, "/workerDefaults/scale.*missing property 'min'"),
    (with_class(scale=None), "/workers/forest/scale.*got null, want object"),
    # Values that do not go together.
    (
        with_class(scale={"by": "keda", "min": 9, "max": 3}),
        r"workers\.forest\.scale: min \(9\) is above max \(3\)",
    ),
    (with_class(scale={"by": "hpa", "min": 0}), "only keda scales to 0"),
    ({**with_class(scale={"by": "keda"}), "exporter": {"enabled": False}}, "set exporter.enabled"),
    (with_class(memory="1Gi", disk="1024Mi"), r"workers\.forest: disk \(1024Mi\) is in memory"),
    (with_class(trust={"requireSignature": True}), "requireSignature needs keys"),
    ({"models": {"url": "s3://a", "claim": "b"}}, "both set"),
    ({}, r"models\.url and models\.claim are both empty"),
    ({**MINIMAL, "workers": {"default": None}}, "name a class of workers"),
]


@pytest.mark.parametrize(("values", "message"), REFUSED, ids=lambda value: value if isinstance(value, str) else "")
def test_wrong_values_are_refused_with_their_path(values: Object, message: str):
    with pytest.raises(RenderError, match=message):
        render(values)


def test_an_error_of_values_shows_no_template():
    with pytest.raises(RenderError) as error:
        render(with_class(scale={"by": "keda", "min": 9, "max": 3}))
    lines = [line for line in str(error.value).splitlines() if line and "symbolic link" not in line]
    assert len(lines) == 2
    assert lines[0].endswith("workers.forest.scale: min (9) is above max (3)")
    assert lines[1].startswith("Use --debug")


def test_helm_3_refuses_wrong_values_too():
    for values in (with_class(memroy="2Gi"), with_class(replicas="2"), {**MINIMAL, "redis": {"password": "a"}}):
        with pytest.raises(RenderError):
            render(values, major=3)


@pytest.mark.parametrize("version", ["1.27.0", "1.34.1-gke.1234000", "v1.30.0-eks-036c24b", "1.37"])
def test_clusters_from_1_27_on_are_supported_with_the_suffixes_of_their_vendors(version: str):
    assert render(MINIMAL, "--kube-version", version)


def test_an_older_cluster_is_refused_before_it_drops_what_it_does_not_know():
    with pytest.raises(RenderError, match=r"kubeVersion: >=1\.27\.0-0"):
        render(MINIMAL, "--kube-version", "1.26.9")


RELEASES = [
    *("a", "headrace", "my-headrace", "2025-prod", "release.with.dots", "x" * 53, "headrace-" + "y" * 40),
    "ml-platform-production-eu-west-1",
]


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("name", ["", "queue", "n" * 25])
def test_every_release_has_names_that_kubernetes_takes(release: str, name: str):
    workers: Object = {"a" * 20: {"scale": {"by": "keda"}}, "2": {}}
    objects = render({**MINIMAL, "nameOverride": name, "workers": workers}, release=release)
    assert [problem for check in OBJECT_CHECKS for problem in check(objects)] == []
    assert [
        find_errors(item, "1.34") for item in objects if not is_custom(item) and find_errors(item, "1.34")
    ] == []


def test_long_names_of_releases_stay_different():
    names = {
        render(MINIMAL, release=f"ml-platform-production-eu-west-{n}")[0]["metadata"]["name"] for n in range(3)
    }
    assert len(names) == 3


def selectors(values: Object, **options: Any) -> dict[str, Object]:
    objects = render(values, **options)
    by_component = {}
    for item in select(objects, "Deployment"):
        selector = item["spec"]["selector"]["matchLabels"]
        by_component[selector["app.kubernetes.io/component"]] = selector
    return by_component


@pytest.mark.parametrize(
    "change",
    [
        {"image": {"tag": "2"}},
        {"labels": {"team": "ml"}},
        {"nameOverride": "queue"},
        {"workers": {"default": {"podLabels": {"tier": "a"}, "scale": {"by": "keda"}}}},
    ],
    ids=["image", "labels", "name", "class"],
)
def test_an_upgrade_changes_no_selector_which_a_deployment_refuses(change: Object):
    assert selectors({**MINIMAL, **change}) == selectors(MINIMAL)


def test_pods_are_not_replaced_by_an_upgrade_that_changes_only_the_version_of_the_chart(tmp_path):
    newer = tmp_path / "headrace"
    shutil.copytree(CHART, newer)
    chart = yaml.safe_load((newer / "Chart.yaml").read_text())
    (newer / "Chart.yaml").write_text(yaml.safe_dump({**chart, "version": "9.9.9"}))
    old, new = render(MINIMAL), render(MINIMAL, chart=newer)
    assert (
        pick(old, "Deployment", "headrace-default")["metadata"]
        != (pick(new, "Deployment", "headrace-default")["metadata"])
    )
    for name in ("headrace-default", "headrace-exporter"):
        assert pick(old, "Deployment", name)["spec"] == pick(new, "Deployment", name)["spec"]


def worker(values: Object, **options: Any) -> Object:
    """Return the container of the class default."""
    deployment = pick(render({**MINIMAL, **values}, **options), "Deployment", "headrace-default")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    return dict(container)


def image(values: Object) -> str:
    return str(worker(values)["image"])


def test_a_digest_wins_over_a_tag_and_the_tag_of_a_class_over_the_digest_of_the_chart():
    digest = f"sha256:{'0' * 64}"
    assert image({"image": {"tag": "1.10"}}) == "headrace-worker:1.10"
    assert image({"image": {"tag": "1.10", "digest": digest}}) == f"headrace-worker@{digest}"
    trial = {"image": {"digest": digest}, "workers": {"default": {"image": {"tag": "trial"}}}}
    assert image(trial) == "headrace-worker:trial"
    assert image({"workers": {"default": {"image": {"digest": digest}}}}) == f"headrace-worker@{digest}"


def test_numbers_of_settings_are_written_in_full():
    settings = {"HEADRACE_MAX_MODEL_BYTES": 10737418240, "HEADRACE_CLAIM_JOBS": 1000000, "HEADRACE_EVENTS": 0.01}
    values = {**MINIMAL, "workers": {"default": {"settings": {**settings, "HEADRACE_LOG_FORMAT": "json"}}}}
    for major in (3, 4):
        container = pick(render(values, major=major), "Deployment", "headrace-default")["spec"]["template"][
            "spec"
        ]["containers"][0]
        variables = {item["name"]: item.get("value") for item in container["env"]}
        assert {name: variables[name] for name in settings} == {
            "HEADRACE_MAX_MODEL_BYTES": "10737418240",
            "HEADRACE_CLAIM_JOBS": "1000000",
            "HEADRACE_EVENTS": "0.01",
        }
        assert variables["HEADRACE_LOG_FORMAT"] == "json"


@pytest.mark.parametrize("memory", ["2Gi", "2G", "6.5Gi", "1500M", "900Mi", "1T"])
def test_the_memory_of_a_process_is_computed_as_kubernetes_reads_it(memory: str):
    values = {**MINIMAL, "workers": {"default": {"memory": memory, "disk": "100Mi", "concurrency": 3}}}
    (limit,) = [item["value"] for item in worker(values)["env"] if item["name"] == "HEADRACE_MEMORY_LIMIT"]
    assert int(limit) == int((quantity(memory, "") - 100 * 2**20) * 0.9 / 3)


def test_a_chart_that_contains_this_one_may_set_its_condition_and_global_values():
    render({**MINIMAL, "enabled": True, "global": {"imageRegistry": "registry.example"}})


def test_the_settings_of_a_class_are_those_of_a_worker_that_the_chart_does_not_set_itself():
    schema = yaml.safe_load((CHART / "values.schema.json").read_text())["definitions"]["class"]["properties"]
    free = {name for name in schema["settings"]["properties"] if name.startswith("HEADRACE_")}
    every = {f"HEADRACE_{name.upper()}" for name in WorkerSettings.__struct_fields__}
    assert free <= every
    assert every - free == {
        *("HEADRACE_REDIS_URL", "HEADRACE_KEY_PREFIX", "HEADRACE_JOB_KEYS"),  # values of redis; a secret
        *("HEADRACE_MODELS", "HEADRACE_MODEL_CACHE", "HEADRACE_MODEL_CACHE_BYTES"),  # values of models
        *("HEADRACE_SERVE", "HEADRACE_DRAIN", "HEADRACE_MEMORY_LIMIT"),  # fields of a class
        *("HEADRACE_TRUST_PICKLE", "HEADRACE_TRUST_MODULES", "HEADRACE_MODEL_KEYS", "HEADRACE_REQUIRE_SIGNATURE"),
        *("HEADRACE_METRICS_ADDRESS", "HEADRACE_METRICS_PORT", "HEADRACE_READY_FILE", "HEADRACE_HEALTH_FILE"),
    }


def test_the_settings_of_the_gateway_are_those_that_the_chart_does_not_set_itself():
    schema = yaml.safe_load((CHART / "values.schema.json").read_text())["properties"]["gateway"]["properties"]
    every = {f"HEADRACE_{name.upper()}" for name in GatewaySettings.__struct_fields__}
    free = set(schema["settings"]["properties"])
    assert free <= every
    assert every - free == {
        *("HEADRACE_REDIS_URL", "HEADRACE_KEY_PREFIX", "HEADRACE_JOB_KEYS"),  # values of redis; a secret
        *("HEADRACE_GATEWAY_ADDRESS", "HEADRACE_GATEWAY_PORT", "HEADRACE_GATEWAY_DRAIN"),
        *("HEADRACE_GATEWAY_METRICS_ADDRESS", "HEADRACE_GATEWAY_METRICS_PORT"),
        *("HEADRACE_GATEWAY_OPEN", "HEADRACE_GATEWAY_OPEN_NETWORK"),  # other machines reach a pod: it wants keys
        "HEADRACE_LISTEN_LIMIT",  # no job of a gateway has a listener
    }


def test_the_settings_of_the_notifier_are_those_that_the_chart_does_not_set_itself():
    schema = yaml.safe_load((CHART / "values.schema.json").read_text())["properties"]["notifier"]["properties"]
    every = {f"HEADRACE_{name.upper()}" for name in NotifySettings.__struct_fields__}
    free = {name for name in schema["settings"]["properties"] if name.startswith("HEADRACE_")}
    assert free <= every
    assert every - free == {
        *("HEADRACE_REDIS_URL", "HEADRACE_KEY_PREFIX"),  # values of redis
        *("HEADRACE_NOTIFY", "HEADRACE_NOTIFY_TIMEOUT"),
        *("HEADRACE_NOTIFY_METRICS_ADDRESS", "HEADRACE_NOTIFY_METRICS_PORT"),
        # Of who submits jobs, which a notifier does not.
        *("HEADRACE_JOB_KEYS", "HEADRACE_CONTRACT_TTL", "HEADRACE_JOB_TTL", "HEADRACE_RESULT_TTL"),
        *("HEADRACE_MAX_JOB_BYTES", "HEADRACE_MAX_JOB_VALUES", "HEADRACE_QUEUE_LIMIT", "HEADRACE_LISTEN_LIMIT"),
    }
    assert (
        schema["timeout"]["maximum"]
        >= yaml.safe_load((CHART / "values.yaml").read_text())["notifier"]["timeout"]
        == NotifySettings().notify_timeout
    )


def test_the_defaults_of_the_chart_fit_the_types_of_its_schema_and_are_all_described():
    schema = yaml.safe_load((CHART / "values.schema.json").read_text())
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    assert set(schema["properties"]) - {"global", "enabled"} == set(values)
    defaults, fields = values["workerDefaults"], schema["definitions"]["class"]["properties"]
    assert set(defaults) == set(fields)
    for name in ("scale", "trust"):
        assert set(defaults[name]) == set(fields[name]["properties"])
