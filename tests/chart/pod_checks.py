"""Checks of every pod of the chart, beyond those of a schema. Each names problems."""

from __future__ import annotations

import re
from collections.abc import Iterator

import click

from headrace.cli import main
from headrace.errors import SettingError
from headrace.settings import Settings, load_settings
from headrace_gateway.notify.settings import NotifySettings
from headrace_gateway.settings import GatewaySettings
from headrace_worker.settings import WorkerSettings
from tests.chart.fields import Refused, quantity
from tests.chart.helm import Object, pod_templates, select
from tests.chart.objects import Check, containers
from tests.support import ROOT

#: The settings that a container reads, by the name of its command; a worker's for all others.
SETTINGS_OF: dict[str, type[Settings]] = {"gateway": GatewaySettings, "notify": NotifySettings}
#: Variables of other programs that the documentation names, and those of Flower.
OTHERS = re.compile(
    r"SENTRY_(DSN|RELEASE|ENVIRONMENT|TRACES_SAMPLE_RATE)|OTEL_[A-Z0-9_]+|FSSPEC_S3"
    r"|AWS_(ACCESS_KEY_ID|SECRET_ACCESS_KEY|REGION|ENDPOINT_URL_S3)|HEADRACE_FLOWER_(LOGIN|ACTIONS)"
    r"|HTTPS?_PROXY|NO_PROXY"
)


def mounts_are_volumes(objects: list[Object]) -> Iterator[str]:
    for owner, pod in pod_templates(objects).items():
        volumes = [volume["name"] for volume in pod["spec"].get("volumes", [])]
        mounted = [mount["name"] for c in pod["spec"]["containers"] for mount in c.get("volumeMounts", [])]
        if sorted(set(volumes)) != sorted(volumes) or set(volumes) != set(mounted):
            yield f"{owner} mounts {mounted} of {volumes}"
        for container in pod["spec"]["containers"]:
            paths = [mount["mountPath"] for mount in container.get("volumeMounts", [])]
            if len(set(paths)) != len(paths):
                yield f"{owner} mounts twice at one of {paths}"


def a_restart_follows_only_a_hang(objects: list[Object]) -> Iterator[str]:
    for owner, _pod, container in containers(objects):
        for probe in ("startupProbe", "livenessProbe"):
            if container.get(probe, {}).get("httpGet", {}).get("path") in ("/ready", "/metrics"):
                yield f"{owner}: {probe} fails while Redis is away or a model loads"
        if (
            container["name"] in ("worker", "gateway", "notifier")
            and container.get("readinessProbe", {}).get("httpGet", {}).get("path") != "/ready"
        ):
            yield f"{owner} is ready before it can work"
        if container.get("ports") and not {"startupProbe", "readinessProbe", "livenessProbe"} <= container.keys():
            yield f"{owner} lacks a probe"


def quantities_are_valid(objects: list[Object]) -> Iterator[str]:
    for owner, pod, container in containers(objects):
        try:
            resources = container["resources"]
            for name in ("cpu", "memory"):
                quantity(resources["limits"][name], owner)
            if resources["requests"] != resources["limits"]:
                yield f"{owner} may use more than it asks for"
            in_memory = [
                v["emptyDir"] for v in pod["spec"]["volumes"] if v.get("emptyDir", {}).get("medium") == "Memory"
            ]
            if sum(quantity(v["sizeLimit"], owner) for v in in_memory) >= quantity(
                resources["limits"]["memory"], owner
            ):
                yield f"{owner}: files fill its memory"
            for volume in pod["spec"]["volumes"]:
                if "emptyDir" in volume:
                    quantity(volume["emptyDir"]["sizeLimit"], owner)
        except (KeyError, Refused) as error:
            yield f"{owner}: {error}"


def settings_of(container: Object) -> type[Settings]:
    """Return the settings that a container reads."""
    return SETTINGS_OF.get(container["args"][0], WorkerSettings)


def names_of_settings(container: Object) -> set[str]:
    return {f"HEADRACE_{name.upper()}" for name in settings_of(container).__struct_fields__}


def variables_are_settings(objects: list[Object]) -> Iterator[str]:
    for owner, _pod, container in containers(objects):
        names = [variable["name"] for variable in container.get("env", [])]
        for name in names:
            if names.count(name) > 1:
                yield f"{owner} sets {name} twice"
            plain = name.removesuffix("_FILE") if name.endswith(("URL_FILE", "LOGIN_FILE")) else name
            if plain not in names_of_settings(container) and not OTHERS.fullmatch(plain):
                yield f"{owner} sets {name}, which is no setting"


def variables_load_as_settings(objects: list[Object]) -> Iterator[str]:
    for owner, _pod, container in containers(objects):
        environ = {item["name"]: item["value"] for item in container.get("env", []) if "value" in item}
        try:
            load_settings(settings_of(container), {n: v for n, v in environ.items() if not n.endswith("_FILE")})
        except SettingError as error:
            yield f"{owner}: {error}"


def commands_are_known(objects: list[Object]) -> Iterator[str]:
    for owner, _pod, container in containers(objects):
        command, arguments = main, container["args"]
        try:
            while isinstance(command, click.Group) and arguments:
                context = click.Context(command, info_name="headrace")
                command, arguments = command.get_command(context, arguments[0]), arguments[1:]
            if command is None:
                yield f"{owner} runs an unknown command: {container['args']}"
            else:
                command.make_context("headrace", list(arguments))
        except click.UsageError as error:
            yield f"{owner}: {error.message}"


def processes_share_the_memory(objects: list[Object]) -> Iterator[str]:
    for owner, pod, container in containers(objects):
        if container["name"] != "worker":
            continue
        variables = {variable["name"]: variable.get("value") for variable in container["env"]}
        processes = int(container["args"][container["args"].index("--concurrency") + 1])
        (disk,) = [v["emptyDir"]["sizeLimit"] for v in pod["spec"]["volumes"] if v["name"] == "tmp"]
        left = quantity(container["resources"]["limits"]["memory"], owner) - quantity(disk, owner)
        share = int(variables["HEADRACE_MEMORY_LIMIT"]) * processes / left
        if not 0.85 < share < 0.95:
            yield f"{owner}: its processes may use {share:.0%} of its memory"


#: Settings of the seconds that a container takes to end after a stop signal.
DRAINS = ("HEADRACE_DRAIN", "HEADRACE_GATEWAY_DRAIN", "HEADRACE_NOTIFY_TIMEOUT")


def the_grace_is_above_the_drain(objects: list[Object]) -> Iterator[str]:
    for owner, pod, container in containers(objects):
        for variable in container.get("env", []):
            if variable["name"] in DRAINS:
                grace = pod["spec"].get("terminationGracePeriodSeconds", 30)
                if not float(variable["value"]) + 15 <= grace < float(variable["value"]) + 16:
                    yield f"{owner} is killed {grace} s after its stop, and drains {variable['value']} s"


def pods_are_restricted(objects: list[Object]) -> Iterator[str]:
    """Check the points of Pod Security's profile "restricted", and a read-only root."""
    for owner, pod in pod_templates(objects).items():
        spec = pod["spec"]
        security = spec.get("securityContext", {})
        if security.get("runAsNonRoot") is not True or security.get("runAsUser") != 10001:
            yield f"{owner} may run as root"
        if security.get("seccompProfile") != {"type": "RuntimeDefault"}:
            yield f"{owner} has no seccomp profile"
        if spec.get("automountServiceAccountToken") is not False or spec.get("enableServiceLinks") is not False:
            yield f"{owner} has a token of the API server, or the addresses of services"
        for forbidden in ("hostNetwork", "hostPID", "hostIPC", "initContainers"):
            if forbidden in spec:
                yield f"{owner} has {forbidden}"
        for volume in spec["volumes"]:
            if not {"projected", "emptyDir", "configMap", "persistentVolumeClaim"} & volume.keys():
                yield f"{owner} has the volume {volume}"
        for container in spec["containers"]:
            context = container.get("securityContext", {})
            if context.get("allowPrivilegeEscalation") is not False or context.get("capabilities") != {
                "drop": ["ALL"]
            }:
                yield f"{owner} may gain privileges"
            if context.get("readOnlyRootFilesystem") is not True:
                yield f"{owner} may write to its image"
            if {"privileged", "runAsUser", "procMount"} & context.keys():
                yield f"{owner} leaves the profile"


def credentials_are_those_of_secrets_sh(objects: list[Object]) -> Iterator[str]:
    script = (ROOT / "deploy" / "secrets.sh").read_text()
    (users,) = re.findall(r"^users='(.*)'$", script, re.MULTILINE)
    files = {f"{user}.url" for user in users.split()} | {"flower.login"}
    yours = ("ca", "notify")  # under a name of your choice
    for owner, pod in pod_templates(objects).items():
        for volume in pod["spec"]["volumes"]:
            for source in volume.get("projected", {}).get("sources", []):
                for item in source["secret"]["items"]:
                    if item["path"] not in yours and item["key"] not in files:
                        yield f"{owner} reads {item['key']}, which secrets.sh does not write"
                    if item["key"] == "admin.url":
                        yield f"{owner} is an administrator of Redis"


def images_have_a_version(objects: list[Object]) -> Iterator[str]:
    for owner, _pod, container in containers(objects):
        if (
            not re.fullmatch(r"[^@]+(:[\w][\w.-]*|@sha256:[a-f0-9]{64})", container["image"])
            or "latest" in container["image"]
        ):
            yield f"{owner} runs {container['image']}"


def accounts_are_there(objects: list[Object]) -> Iterator[str]:
    accounts = {item["metadata"]["name"]: item for item in select(objects, "ServiceAccount")}
    for item in accounts.values():
        if item["automountServiceAccountToken"] is not False:
            yield f"ServiceAccount/{item['metadata']['name']} mounts its token"
    for owner, pod in pod_templates(objects).items():
        if pod["spec"].get("serviceAccountName", next(iter(accounts), "")) not in accounts:
            yield f"{owner} runs as {pod['spec']['serviceAccountName']}"


POD_CHECKS: list[Check] = [
    mounts_are_volumes,
    a_restart_follows_only_a_hang,
    quantities_are_valid,
    variables_are_settings,
    variables_load_as_settings,
    commands_are_known,
    processes_share_the_memory,
    the_grace_is_above_the_drain,
    pods_are_restricted,
    credentials_are_those_of_secrets_sh,
    images_have_a_version,
    accounts_are_there,
]
