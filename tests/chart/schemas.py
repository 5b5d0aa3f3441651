"""The schemas of Kubernetes, KEDA and the Prometheus operator: what an API server says of an object."""

from __future__ import annotations

import functools
import importlib
import json
import sys
from importlib import resources
from typing import Any

from jsonschema import Draft202012Validator
from referencing import Registry, Resource

from tests.chart.helm import Object
from tests.chart.wheels import unpack_operators

#: Versions of Kubernetes: the oldest the chart allows, one that many run, and the newest of the package.
VERSIONS = ("1.27", "1.34", "1.37")

#: The modules that model the kinds of an operator, by their version of the API.
_MODULES = {
    "keda.sh/v1alpha1": "cloudcoil.models.keda.v1alpha1",
    "monitoring.coreos.com/v1": "cloudcoil.models.prometheus_operator.v1",
}


def is_custom(item: Object) -> bool:
    """Return whether an object is of a kind that an operator adds to Kubernetes."""
    return item["apiVersion"] in _MODULES


def find_errors(item: Object, version: str) -> list[str]:
    """Return what a version of Kubernetes refuses of an object, unknown fields too."""
    return sorted(f"{error.json_path}: {error.message}" for error in _validator(item, version).iter_errors(item))


def find_custom_errors(item: Object) -> list[str]:
    """Return what an operator refuses of an object of its kinds, or does not know."""
    model = _model(item["apiVersion"], item["kind"])
    try:
        modelled = model.model_validate(item).model_dump(mode="json", by_alias=True, exclude_unset=True)
    except ValueError as error:
        return [str(error)]
    return list(_unknown(item, modelled, "$"))


def _unknown(item: Any, modelled: Any, path: str) -> list[str]:
    if isinstance(item, dict) and isinstance(modelled, dict):
        lost = [f"{path}.{name}: unknown" for name in item.keys() - modelled.keys()]
        return lost + [
            line
            for name in item.keys() & modelled.keys()
            for line in _unknown(item[name], modelled[name], f"{path}.{name}")
        ]
    if isinstance(item, list) and isinstance(modelled, list):
        return [
            line
            for index, value in enumerate(item)
            for line in _unknown(value, modelled[index], f"{path}[{index}]")
        ]
    return []


@functools.cache
def _model(version: str, kind: str) -> Any:
    folder = str(unpack_operators())
    if folder not in sys.path:
        sys.path.append(folder)
    return getattr(importlib.import_module(_MODULES[version]), kind)


@functools.cache
def _registry(version: str) -> Registry:
    return Resource.from_contents(_read(version, "_definitions.json")) @ Registry()


@functools.cache
def _schema(version: str, name: str) -> dict[str, Any]:
    return _read(version, name)


def _validator(item: Object, version: str) -> Draft202012Validator:
    group, _, short = item["apiVersion"].rpartition("/")
    api = "-".join(filter(None, [group.split(".")[0], short]))
    schema = _schema(version, f"{item['kind'].lower()}-{api}.json")
    return Draft202012Validator(schema, registry=Resource.from_contents(schema) @ _registry(version))


def _read(version: str, name: str) -> dict[str, Any]:
    folder = resources.files("kubernetes_validate") / "kubernetes-json-schema" / f"v{version}.0-local-strict"
    content: dict[str, Any] = json.loads((folder / name).read_text())
    return content
