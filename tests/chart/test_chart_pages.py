"""The pages on the chart: the reference is current, and what the how-to shows works without a cluster."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

import headrace
from tests.chart.helm import CHART, Object, pick, pod_templates, render, run_helm
from tests.chart.object_checks import OBJECT_CHECKS
from tests.chart.pod_checks import POD_CHECKS
from tests.chart.wheels import find_kubectl
from tests.support import ROOT

pytestmark = pytest.mark.long

HOW_TO = (ROOT / "docs" / "how-to" / "run-on-kubernetes.md").read_text()
#: The files of values on the page.
VALUES: list[Object] = [
    yaml.safe_load(block) for block in re.findall(r"^```yaml\n(# values\.yaml\n.*?)^```", HOW_TO, re.M | re.S)
]


def commands(program: str) -> list[list[str]]:
    """Return the commands of the page that run a program, split as a shell does."""
    blocks = re.findall(r"^ *```sh\n(.*?)^ *```", HOW_TO, re.M | re.S)
    lines = [line.strip() for block in blocks for line in block.splitlines()]
    return [shlex.split(line) for line in lines if line.startswith(f"{program} ")]


def test_the_reference_and_the_comments_of_the_values_are_what_the_schema_says():
    command = [sys.executable, ROOT / "deploy" / "helm" / "reference.py", "--check"]
    assert subprocess.run(command).returncode == 0


def paths(values: Object, prefix: str = "") -> Iterator[str]:
    """Yield the path of each value that is not a group of others."""
    for name, value in values.items():
        if value and isinstance(value, dict):
            yield from paths(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def test_every_value_is_in_the_reference_itself_or_as_a_group_or_in_a_map():
    reference = (ROOT / "docs" / "reference" / "chart.md").read_text()
    rows = set(re.findall(r"^\| `([\w.]+)` \|", reference, re.M))

    def is_described(path: str) -> bool:
        return any(f"{row}.".startswith(f"{path}.") or path.startswith(f"{row}.") for row in rows)

    every = list(paths(yaml.safe_load((CHART / "values.yaml").read_text())))
    assert len(every) > 60
    assert [path for path in every if not is_described(path)] == []


def test_the_chart_has_the_version_of_headrace():
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["appVersion"] == chart["version"] == headrace.__version__


def test_the_how_to_names_only_fields_that_are_there():
    assert len(VALUES) == 5
    for values in VALUES:
        objects = render(values)
        assert [problem for check in POD_CHECKS + OBJECT_CHECKS for problem in check(objects)] == []


def test_workers_have_the_probes_of_the_page_on_health():
    page = (ROOT / "docs" / "reference" / "health.md").read_text()
    (block,) = re.findall(r"^```yaml\n(startupProbe:.*?)^```", page, re.M | re.S)
    (worker,) = pick(render(), "Deployment", "headrace-default")["spec"]["template"]["spec"]["containers"]
    assert {port["name"]: port["containerPort"] for port in worker["ports"]} == {"metrics": 9464}
    for name, probe in yaml.safe_load(block.replace("9464", "metrics")).items():
        assert worker[name] == probe


def test_the_install_command_renders_the_values_beside_it(tmp_path: Path):
    install, test = commands("helm")
    assert install[:4] == ["helm", "upgrade", "--install", "headrace"]
    (tmp_path / "values.yaml").write_text(yaml.safe_dump(VALUES[0]))
    options = [str(tmp_path / "values.yaml") if option == "values.yaml" else option for option in install[5:]]
    assert ROOT / install[4] == CHART
    assert "kind: ScaledObject" in run_helm("template", install[3], CHART, *options).stdout
    assert test[:3] == ["helm", "test", install[3]]


def test_the_commands_that_create_secrets_make_every_key_that_the_pods_read(tmp_path: Path):
    environment = {**os.environ, "HEADRACE_SECRETS": str(tmp_path / "secrets")}
    subprocess.run(["cp", "-r", ROOT / "deploy", tmp_path / "deploy"], check=True)
    (tmp_path / "docs" / "reference").mkdir(parents=True)
    (tmp_path / "docs" / "reference" / "acl.md").write_text((ROOT / "docs" / "reference" / "acl.md").read_text())
    subprocess.run([tmp_path / "deploy" / "secrets.sh"], env=environment, capture_output=True, check=True)
    created = set()
    for command in commands("kubectl"):
        dry = [find_kubectl(), *command[1:], "--dry-run=client", "--output=yaml"]
        environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
        output = subprocess.run(dry, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
        secret = yaml.safe_load(output.stdout)
        created |= {(secret["metadata"]["name"], key) for key in secret["data"]}
    values = {**VALUES[0], **{name: {"enabled": True} for name in ("flower", "gateway", "notifier")}}
    needed = {
        (source["secret"]["name"], item["key"])
        for pod in pod_templates(render(values)).values()
        for volume in pod["spec"]["volumes"]
        for source in volume.get("projected", {}).get("sources", [])
        for item in source["secret"]["items"]
    }
    assert created == needed


def test_the_table_for_docker_compose_names_its_variables_and_our_fields():
    rows = re.findall(r"^\| (.*) \| (.*) \|$", HOW_TO.partition("## From docker-compose")[2], re.M)
    compose = "".join((ROOT / name).read_text() for name in ("docker-compose.yml", "deploy/roll.sh"))
    variables = {name for left, _ in rows for name in re.findall(r"`(HEADRACE_\w+|WORKER_\w+)", left)}
    assert variables
    assert {name for name in variables if name not in compose} <= {"HEADRACE_DRAIN"}  # a setting that one adds
    reference = (ROOT / "docs" / "reference" / "chart.md").read_text()
    for _, right in rows[1:]:
        for field in re.findall(r"`([a-z][a-zA-Z.]*)`", right):
            assert f".{field}`" in reference or f"`{field}`" in reference or field in ("helm", "trial"), field
