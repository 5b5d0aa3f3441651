"""The template of a pod, read into the values that the runner plays. Reading has no effects."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tests.chart.fields import Fields, Refused, quantity
from tests.chart.volumes import Configuration, Volume, read_volume

#: Fields of a pod that only a scheduler, an API server or a registry reads.
ELSEWHERE = (
    *("affinity", "nodeSelector", "tolerations", "topologySpreadConstraints", "priorityClassName"),
    "imagePullSecrets",
)
#: Fields of a container that change nothing here: the engine has the images, and nobody reads the message.
_UNUSED = ("imagePullPolicy", "terminationMessagePath", "terminationMessagePolicy")


@dataclass(frozen=True)
class Probe:
    """A probe, with the defaults of Kubernetes. Times are in seconds."""

    #: The port and the path of a request. Without a path, the port only has to accept a connection.
    port: int = 0
    path: str = ""
    #: The command of a probe without a port.
    command: tuple[str, ...] = ()
    initial_delay: float = 0
    period: float = 10
    timeout: float = 1
    successes: int = 1
    failures: int = 3


@dataclass(frozen=True)
class Mount:
    volume: str
    path: str
    read_only: bool


@dataclass(frozen=True)
class Container:
    """A container."""

    name: str
    image: str
    #: Options of `docker run`: the user, the confinement and the limit of memory.
    options: tuple[str, ...]
    #: The limit in processors; 0 is none.
    cpus: float
    #: The entry point; empty for the image's.
    command: tuple[str, ...]
    arguments: tuple[str, ...]
    environ: Mapping[str, str]
    mounts: tuple[Mount, ...]
    ports: Mapping[str, int]
    startup: Probe | None
    readiness: Probe | None
    liveness: Probe | None
    #: True for a container that may not run as root, and whose user is the image's.
    refuses_root: bool


@dataclass(frozen=True)
class PodSpec:
    labels: Mapping[str, str]
    containers: tuple[Container, ...]
    volumes: Mapping[str, Volume]
    restart_policy: str
    #: Seconds between SIGTERM and SIGKILL.
    grace: float
    #: The group that owns the volumes; 0 is root.
    group: int
    service_account: str


def read_pod(template: Mapping[str, Any], configuration: Configuration, name: str) -> PodSpec:
    """Read the metadata and the spec of a pod. Raises Refused for what the runner does not play."""
    metadata = {**(template.get("metadata") or {}), "name": name}
    with Fields(template["spec"], f"{name}: spec") as spec:
        spec.ignore(*ELSEWHERE)
        for additions in ("automountServiceAccountToken", "enableServiceLinks"):
            if spec.take(additions, True):
                raise Refused(f"{name}: {additions} is on; the runner has no API server and sets no variables")
        restart_policy = spec.take("restartPolicy", "Always")
        account = spec.take("serviceAccountName", "default")
        grace = spec.take("terminationGracePeriodSeconds", 30)
        with spec.child("securityContext", {}) as security:
            group = security.take("fsGroup", 0)
            security.ignore("fsGroupChangePolicy")
            user = _read_user(security)
        volumes = {item.take("name"): read_volume(item, configuration, group) for item in spec.children("volumes")}
        containers = [_read_container(item, configuration, user, metadata) for item in spec.children("containers")]
    for container in containers:
        for mount in container.mounts:
            if mount.volume not in volumes:
                raise Refused(f"{name}: {container.name} mounts {mount.volume}, which is no volume of the pod")
    labels = metadata.get("labels") or {}
    return PodSpec(labels, tuple(containers), volumes, restart_policy, float(grace), int(group), account)


def _read_user(security: Fields) -> dict[str, Any]:
    """Read what the security contexts of a pod and of a container have in common."""
    with security.child("seccompProfile", {"type": "RuntimeDefault"}) as profile:
        profile.expect("type", "RuntimeDefault")  # the engine's own default
    names = ("runAsUser", "runAsGroup", "runAsNonRoot")
    return {name: value for name in names if (value := security.take(name, None)) is not None}


def _read_container(
    fields: Fields, configuration: Configuration, pod_user: Mapping[str, Any], metadata: Mapping[str, Any]
) -> Container:
    fields.ignore(*_UNUSED)
    ports = {}
    for port in fields.children("ports"):
        port.expect("protocol", "TCP")
        number = port.take("containerPort")
        ports[port.take("name", str(number))] = number
    with fields.child("securityContext", {}) as security:
        user = {**pod_user, **_read_user(security)}
        options = [*_user_options(user, security.path), *_confinement(security)]
    with fields.child("resources", {}) as resources:
        cpus, memory = _limits(resources)
        if memory:
            options += [f"--memory={memory:.0f}", f"--memory-swap={memory:.0f}"]
    environ = dict(_variables(fields, configuration, metadata))
    command, arguments = fields.take("command", []), fields.take("args", [])
    for text in (*command, *arguments, *environ.values()):
        if any(f"$({name})" in text for name in environ):
            raise Refused(f"{fields.path}: the runner expands no variables, as in {text!r}")
    mounts = [
        Mount(mount.take("name"), mount.take("mountPath"), mount.take("readOnly", False))
        for mount in fields.children("volumeMounts")
    ]
    return Container(
        name=fields.take("name"),
        image=fields.take("image"),
        options=tuple(options),
        cpus=cpus,
        command=tuple(command),
        arguments=tuple(arguments),
        environ=environ,
        mounts=tuple(mounts),
        ports=ports,
        startup=_probe(fields, "startupProbe", ports),
        readiness=_probe(fields, "readinessProbe", ports),
        liveness=_probe(fields, "livenessProbe", ports),
        refuses_root=bool(user.get("runAsNonRoot")) and "runAsUser" not in user,
    )


def _user_options(user: Mapping[str, Any], path: str) -> list[str]:
    if "runAsUser" not in user:
        return []
    if user.get("runAsNonRoot") and user["runAsUser"] == 0:
        raise Refused(f"{path}: runAsNonRoot, and runAsUser is 0")
    return ["--user", f"{user['runAsUser']}:{user.get('runAsGroup', 0)}"]


def _confinement(security: Fields) -> Iterator[str]:
    if security.take("readOnlyRootFilesystem", False):
        yield "--read-only"
    if not security.take("allowPrivilegeEscalation", True):
        yield "--security-opt=no-new-privileges"
    with security.child("capabilities", {}) as capabilities:
        yield from (f"--cap-drop={name}" for name in capabilities.take("drop", []))
        yield from (f"--cap-add={name}" for name in capabilities.take("add", []))
    security.expect("privileged", False)


def _limits(resources: Fields) -> tuple[float, float]:
    """Return the limits of processors and of memory; 0 is none."""
    numbers = []
    with resources.child("requests", {}) as requests, resources.child("limits", {}) as limits:
        for name in ("cpu", "memory", "ephemeral-storage"):
            request, limit = requests.take(name, None), limits.take(name, None)
            if None not in (request, limit) and quantity(request, name) > quantity(limit, name):
                raise Refused(f"{resources.path}: requests {request} of {name}, and is limited to {limit}")
            numbers.append(quantity(limit or 0, name))
    return numbers[0], numbers[1]


def _variables(
    fields: Fields, configuration: Configuration, metadata: Mapping[str, Any]
) -> Iterator[tuple[str, str]]:
    for variable in fields.children("env"):
        name, value = variable.take("name"), variable.take("value", None)
        if value is not None and not isinstance(value, str):
            raise Refused(f"{variable.path}: the value of {name} is {value!r}, should be a text")
        with variable.child("valueFrom", {}) as source:
            for reference_name, kind in (("secretKeyRef", "Secret"), ("configMapKeyRef", "ConfigMap")):
                if (reference := source.take(reference_name, None)) is not None:
                    with Fields(reference, f"{source.path}.{reference_name}") as key:
                        value = configuration.value(kind, key)
            if (reference := source.take("fieldRef", None)) is not None:
                with Fields(reference, f"{source.path}.fieldRef") as key:
                    key.expect("apiVersion", "v1")
                    value = _field_of_pod(metadata, key.take("fieldPath"), key.path)
        if value is not None:
            yield name, value


def _field_of_pod(metadata: Mapping[str, Any], path: str, origin: str) -> str:
    section, _, name = path.partition(".")
    if section != "metadata" or not isinstance(metadata.get(name), str):
        raise Refused(f"{origin}: the runner does not know the field {path}")
    return str(metadata[name])


def _probe(fields: Fields, name: str, ports: Mapping[str, int]) -> Probe | None:
    value = fields.take(name, None)
    if value is None:
        return None
    with Fields(value, f"{fields.path}.{name}") as probe:
        port, path, command = 0, "", ()
        if (request := probe.take("httpGet", None)) is not None:
            with Fields(request, f"{probe.path}.httpGet") as get:
                get.expect("scheme", "HTTP")
                port, path = _port(get, ports), get.take("path", "/")
        if (request := probe.take("tcpSocket", None)) is not None:
            with Fields(request, f"{probe.path}.tcpSocket") as connect:
                port = _port(connect, ports)
        with probe.child("exec", {}) as execute:
            command = tuple(execute.take("command", []))
        if bool(port) == bool(command):
            raise Refused(f"{probe.path} should have either httpGet, tcpSocket or exec")
        return Probe(
            port=port,
            path=path,
            command=command,
            initial_delay=probe.take("initialDelaySeconds", 0),
            period=probe.take("periodSeconds", 10),
            timeout=probe.take("timeoutSeconds", 1),
            successes=probe.take("successThreshold", 1),
            failures=probe.take("failureThreshold", 3),
        )


def _port(fields: Fields, ports: Mapping[str, int]) -> int:
    port = fields.take("port")
    if port not in (*ports, *ports.values()):
        raise Refused(f"{fields.path}.port is {port!r}; the container has {dict(ports)}")
    return ports.get(port, port)
