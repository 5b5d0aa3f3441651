"""The volumes of a pod, and the Secrets and ConfigMaps that fill them. Reading has no effects."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.chart.fields import Fields, Refused, quantity

#: Files of a volume: the content and the mode of each, by its path.
Files = dict[str, tuple[bytes, int]]


@dataclass(frozen=True)
class Volume:
    """A volume of a pod."""

    #: `memory` or `disk` of the pod, `files` of Secrets and ConfigMaps, or a `claim` of the cluster.
    kind: str
    #: The size of `memory`; 0 is no limit. No engine limits `disk`; a cluster evicts a pod that exceeds it.
    size: int = 0
    files: Files = field(default_factory=dict)
    claim: str = ""
    read_only: bool = False


class Configuration:
    """The Secrets and ConfigMaps of a namespace."""

    def __init__(self) -> None:
        self._data: dict[tuple[str, str], dict[str, bytes]] = {}

    def add(self, item: Mapping[str, Any]) -> None:
        kind, name = item["kind"], item["metadata"]["name"]
        data = {key: str(value).encode() for key, value in (item.get("stringData") or {}).items()}
        for key, value in (item.get("data") or {}).items():
            data[key] = b64decode(value) if kind == "Secret" else str(value).encode()
        data |= {key: b64decode(value) for key, value in (item.get("binaryData") or {}).items()}
        self._data[kind, name] = data

    def read(self, kind: str, name: str, *, optional: bool) -> dict[str, bytes]:
        if (kind, name) not in self._data and not optional:
            raise Refused(f"no {kind} {name} is there")
        return self._data.get((kind, name), {})

    def value(self, kind: str, reference: Fields) -> str | None:
        """Read the key that a reference of a variable names; None for an optional key that is missing."""
        optional, key = reference.take("optional", False), reference.take("key")
        data = self.read(kind, reference.take("name"), optional=optional)
        if key not in data and not optional:
            raise Refused(f"{reference.path}: the {kind} has no key {key}")
        return data[key].decode() if key in data else None


def read_volume(fields: Fields, configuration: Configuration, group: int) -> Volume:
    """Read a volume but for its name. `group` is the pod's fsGroup; 0 is none."""
    for kind, read in (("emptyDir", _empty_dir), ("persistentVolumeClaim", _claim)):
        if (value := fields.take(kind, None)) is not None:
            with Fields(value, f"{fields.path}.{kind}") as source:
                return read(source)
    if (value := fields.take("projected", None)) is not None:
        with Fields(value, f"{fields.path}.projected") as source:
            mode, files = source.take("defaultMode", 0o644), Files()
            for item in source.children("sources"):
                files |= dict(_files(item, configuration, "name", mode, group))
            return Volume("files", files=files)
    return Volume("files", files=dict(_files(fields, configuration, "secretName", 0o644, group)))


def _empty_dir(source: Fields) -> Volume:
    source_kind = "memory" if source.take("medium", "") == "Memory" else "disk"
    return Volume(source_kind, size=int(quantity(source.take("sizeLimit", 0), source.path)))


def _claim(source: Fields) -> Volume:
    return Volume("claim", claim=source.take("claimName"), read_only=source.take("readOnly", False))


def _files(
    fields: Fields, configuration: Configuration, secret_name: str, mode: int, group: int
) -> Iterator[tuple[str, tuple[bytes, int]]]:
    """Read the files of a Secret or a ConfigMap. With a group, kubelet lets the group read each."""
    secret, config_map = fields.take("secret", None), fields.take("configMap", None)
    if (secret is None) == (config_map is None):
        raise Refused(f"{fields.path}: the runner knows no such kind of volume")
    kind, name = ("Secret", secret_name) if secret is not None else ("ConfigMap", "name")
    with Fields(secret if secret is not None else config_map, f"{fields.path}: {kind}") as source:
        data = configuration.read(kind, source.take(name), optional=source.take("optional", False))
        mode = source.take("defaultMode", mode)
        items = [
            (item.take("key"), item.take("path"), item.take("mode", mode)) for item in source.children("items")
        ]
    for key, path, file_mode in items or [(key, key, mode) for key in data]:
        if key not in data:
            raise Refused(f"{fields.path}: the {kind} has no key {key}")
        yield path, (data[key], file_mode | (0o440 if group else 0))
