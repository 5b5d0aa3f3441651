"""Helm and the chart: rendered objects, and the error where the chart refuses its values."""

from __future__ import annotations

import functools
import os
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from tests.chart.wheels import find_helm

ROOT = Path(__file__).parents[2]
CHART = ROOT / "deploy" / "helm" / "headrace"
Object = dict[str, Any]

#: Files of values, each a way to use the chart, by name.
VALUES = {file.stem: file for file in sorted((Path(__file__).parent / "values").glob("*.yaml"))}
#: The fewest values that render: where the models are.
MINIMAL: Mapping[str, Any] = {"models": {"claim": "models"}}


class RenderError(Exception):
    """Helm refused the values or the chart; the message is its error."""


def run_helm(*arguments: str | Path, check: bool = True, major: int = 4) -> subprocess.CompletedProcess[str]:
    """Run helm with a home of its own, so that no plugin, repository or cluster of this machine takes part."""
    with tempfile.TemporaryDirectory() as home:
        environment = {"PATH": os.environ["PATH"], "HOME": home}
        completed = subprocess.run(
            [find_helm(major), *arguments], env=environment, capture_output=True, text=True, timeout=60
        )
    if check and completed.returncode != 0:
        raise RenderError(completed.stderr)
    return completed


def render(
    values: Mapping[str, Any] = MINIMAL,
    *options: str | Path,
    release: str = "headrace",
    namespace: str = "ml",
    chart: Path = CHART,
    major: int = 4,
) -> list[Object]:
    """Return the objects that `helm template` makes of the values, hooks included, in its order."""
    return [
        item
        for item in yaml.safe_load_all(
            render_text(values, *options, release=release, namespace=namespace, chart=chart, major=major)
        )
        if item
    ]


def render_text(
    values: Mapping[str, Any] = MINIMAL,
    *options: str | Path,
    release: str = "headrace",
    namespace: str = "ml",
    chart: Path = CHART,
    major: int = 4,
) -> str:
    """Return the text that `helm template` makes of the values."""
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        yaml.safe_dump(dict(values), file)
        file.flush()
        arguments = ["template", release, chart, "--namespace", namespace, "--values", file.name, *options]
        return run_helm(*arguments, major=major).stdout


@functools.cache
def render_file(name: str) -> list[Object]:
    """Return the objects of a file of VALUES; do not change them."""
    return render(yaml.safe_load(VALUES[name].read_text()))


def select(objects: list[Object], kind: str, name: str | None = None) -> list[Object]:
    """Return the objects of a kind, and of a name where it is set."""
    return [item for item in objects if item["kind"] == kind and name in (None, item["metadata"]["name"])]


def pick(objects: list[Object], kind: str, name: str | None = None) -> Object:
    """Return the only object of a kind (and name)."""
    (item,) = select(objects, kind, name)
    return item


def pod_templates(objects: list[Object]) -> dict[str, Object]:
    """Return every pod in the objects, a `metadata` and a `spec`, by KIND/NAME of what makes it."""
    pods = {f"{item['kind']}/{item['metadata']['name']}": item for item in select(objects, "Pod")}
    for kind in ("Deployment", "Job"):
        for item in select(objects, kind):
            pods[f"{kind}/{item['metadata']['name']}"] = item["spec"]["template"]
    return pods
