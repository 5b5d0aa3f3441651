"""The commands `headrace models` verify, gc, diff, keys and sign, run as processes."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import redis
import skops.io
from sklearn.linear_model import LogisticRegression

from headrace.catalog.contract import Array, Contract, Output
from headrace.catalog.published import publish_contract
from headrace.wire.keys import Keys
from tests.support.command import headrace

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    def run(*arguments: object, **environ: str) -> subprocess.CompletedProcess[str]:
        completed = headrace("models", *arguments, cwd=tmp_path, **environ)
        assert "Traceback" not in completed.stderr
        return completed

    return run


@pytest.fixture
def add(run: Run, tmp_path: Path) -> Callable[..., str]:
    def add(*options: object, features: int = 2, classes: int = 2) -> str:
        rows = [[float(row % (column + 2)) for column in range(features)] for row in range(12)]
        model = LogisticRegression().fit(rows, [row % classes for row in range(12)])
        skops.io.dump(model, tmp_path / "model.skops")
        (tmp_path / "rows.json").write_text(json.dumps(rows))
        completed = run("add", "model.skops", "--name", "churn", "--example", "rows.json", "--json", *options)
        assert completed.returncode == 0, completed.stderr
        return str(json.loads(completed.stdout)["version"])

    return add


def test_verify_reports_damaged_versions(run: Run, add: Callable[..., str], tmp_path: Path) -> None:
    assert "no models in models" in run("verify").stderr
    for _ in range(3):
        add()
    assert run("verify").stdout.splitlines() == ["churn@1  ok", "churn@2  ok", "churn@3  ok"]
    with (tmp_path / "models/churn/2/artifact.skops").open("r+b") as file:
        file.write(b"x")
    (tmp_path / "models/churn/3/manifest.json").write_text("{}")
    completed = run("verify", "churn", "--json")
    assert completed.returncode == 1
    assert [json.loads(line)["ok"] for line in completed.stdout.splitlines()] == [True, False, False]
    assert completed.stderr == "2 of 3 versions failed\n"
    assert "churn@2  churn@2 has another digest than its manifest says" in run("verify", "churn@2").stdout
    assert run("verify", "churn@1", "--run").stdout == "churn@1  ok\n"
    for argument, message in (
        ("chrun", "did you mean 'churn'?"),
        ("churn@9", "has no version '9'"),
        ("../x", "a model's name is"),
    ):
        completed = run("verify", argument)
        assert completed.returncode == 1
        assert message in completed.stdout + completed.stderr


def test_verify_run_predicts_the_example(run: Run, add: Callable[..., str], tmp_path: Path) -> None:
    add()
    path = tmp_path / "models/churn/1/manifest.json"
    manifest = json.loads(path.read_text())
    manifest["example"]["expected"]["predict"][0] = 7
    path.write_text(json.dumps(manifest))
    assert run("verify").returncode == 0
    completed = run("verify", "--run")
    assert completed.returncode == 1
    assert "gives other predictions for its example" in completed.stdout


def test_gc_lists_old_versions_in_a_dry_run_and_removes_them(
    run: Run, add: Callable[..., str], redis_url: str, server: redis.Redis, tmp_path: Path
) -> None:
    for _ in range(4):
        add()
    contract = Contract(model="churn", version="2", input=Array(shape=(2,)), methods={"predict": Output(shape=())})
    publish_contract(server, Keys(), contract)
    completed = run("gc", "--keep", 1, "--dry-run", HEADRACE_REDIS_URL=redis_url)
    assert [line.split()[:2] for line in completed.stdout.splitlines()] == [
        ["would", "remove"],
        ["kept", "churn@2"],
        ["would", "remove"],
    ]
    assert completed.stderr.startswith("would remove 2, ")
    assert sorted(path.name for path in (tmp_path / "models/churn").iterdir()) == ["1", "2", "3", "4"]
    completed = run("gc", "churn", "--keep", 1, "--url", redis_url, "--json")
    assert [(item["version"], item["remove"]) for item in map(json.loads, completed.stdout.splitlines())] == [
        ("1", True),
        ("2", False),
        ("3", True),
    ]
    assert sorted(path.name for path in (tmp_path / "models/churn").iterdir()) == ["2", "4"]
    assert run("gc", "--keep", 2, "--url", redis_url).stderr == "nothing to remove\n"


def test_gc_removes_nothing_without_redis_and_refuses_unknown_models(
    run: Run, add: Callable[..., str], tmp_path: Path
) -> None:
    add()
    add()
    unreachable = {"HEADRACE_REDIS_URL": "redis://127.0.0.1:1/0", "HEADRACE_COMMAND_TIMEOUT": "0.3"}
    completed = run("gc", "--keep", 1, **unreachable)
    assert (completed.returncode, completed.stdout) == (1, "")
    assert len(list((tmp_path / "models/churn").iterdir())) == 2
    assert "no model 'fraud' in models; it has churn" in run("gc", "fraud", **unreachable).stderr
    assert run("gc", "--keep", 0, **unreachable).returncode == 2


def test_diff_lists_changes_that_break_producers(run: Run, add: Callable[..., str]) -> None:
    add()
    add()
    add(features=3)
    assert "nothing changes for producers from churn@1 to churn@2" in run("diff", "churn", 1, 2).stderr
    completed = run("diff", "churn", 2, 3)
    assert (completed.returncode, completed.stdout) == (
        0,
        "breaking  instances are lists of 3 values, no longer of 2\n",
    )
    assert completed.stderr == "churn@3 breaks producers of churn@2: 1 of 1 change\n"
    result = json.loads(run("diff", "churn", 2, 3, "--json").stdout)
    assert (result["from"], result["to"], result["breaking"]) == ("2", "3", True)
    assert result["changes"][0]["subject"] == "shape"
    assert run("diff", "churn", 1, 9).returncode == 1


@pytest.mark.parametrize("kind", [(), ("--hmac",)])
def test_versions_are_signed_and_signatures_are_required(
    run: Run, add: Callable[..., str], tmp_path: Path, kind: tuple[str, ...]
) -> None:
    created = run("keys", "new", "release", *kind)
    assert created.returncode == 0, created.stderr
    worker = "release.key" if kind else "release.pub"
    assert f"HEADRACE_MODEL_KEYS={worker}" in created.stderr
    assert "release.key exists already" in run("keys", "new", "release", *kind).stderr
    add("--sign-key", "release.key")
    add()
    settings = {"HEADRACE_MODEL_KEYS": worker, "HEADRACE_REQUIRE_SIGNATURE": "true"}
    completed = run("verify", **settings)
    assert completed.stdout.splitlines()[0] == "churn@1  ok"
    assert "churn@2 is not signed by the key" in completed.stdout.splitlines()[1]
    assert run("show", "churn@2", **settings).returncode == 1
    assert "name the version: churn@N" in run("sign", "churn", "--key", "release.key").stderr
    signed = run("sign", "churn@2", "--key", "release.key")
    assert signed.stdout.startswith("churn@2  signed by ")
    assert run("verify", **settings).returncode == 0
    refused = run("verify", HEADRACE_REQUIRE_SIGNATURE="true")
    assert refused.stderr == "headrace: HEADRACE_REQUIRE_SIGNATURE is true and HEADRACE_MODEL_KEYS names no key\n"
    (tmp_path / "no.key").write_text("hunter2")
    completed = run("sign", "churn@2", "--key", "no.key")
    assert completed.returncode == 1
    assert completed.stderr == "headrace: no.key is no key: neither of `headrace models keys new` nor PEM\n"


def test_list_shows_the_other_models_beside_a_damaged_manifest(
    run: Run, add: Callable[..., str], tmp_path: Path
) -> None:
    add()
    add("--name", "fraud")
    path = tmp_path / "models/churn/1/manifest.json"
    path.chmod(0o600)
    path.write_text("{")
    completed = run("list")
    assert completed.returncode == 1
    assert [line.split()[0] for line in completed.stdout.splitlines()] == ["MODEL", "fraud"]
    assert "the manifest of churn@1 cannot be read" in completed.stderr
    assert "add the model again" in completed.stderr
    lines = run("list", "--json").stdout.splitlines()
    assert [json.loads(line)["model"] for line in lines] == ["fraud"]
