"""`headrace models` add, list and show, run as processes: their output and exit codes."""

from __future__ import annotations

import json
import pickle
import subprocess
import warnings
from collections.abc import Callable
from pathlib import Path

import joblib
import msgspec
import pytest
import skops.io
from click.testing import CliRunner
from sklearn.compose import make_column_transformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from headrace_worker.cli.models import models
from headrace_worker.manifest import Limits
from tests.support.command import headrace

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    def run(*arguments: object, **environ: str) -> subprocess.CompletedProcess[str]:
        completed = headrace("models", *arguments, cwd=tmp_path, **environ)
        assert "Traceback" not in completed.stderr
        return completed

    return run


@pytest.fixture(scope="session")
def penguins(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model of the palmerpenguins data (model.skops, model.joblib) and its rows (rows.csv)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # palmerpenguins 0.1 reads its data through pkg_resources
        from palmerpenguins import load_penguins

        table = load_penguins()
    folder = tmp_path_factory.mktemp("penguins")
    rows = table.drop(columns="species")
    model = make_pipeline(
        make_column_transformer(
            (make_pipeline(SimpleImputer(), StandardScaler()), ["bill_length_mm", "body_mass_g"]),
            (make_pipeline(SimpleImputer(strategy="most_frequent"), OneHotEncoder()), ["island", "sex"]),
        ),
        LogisticRegression(),
    ).fit(rows, table["species"])
    skops.io.dump(model, folder / "model.skops")
    joblib.dump(model, folder / "model.joblib")
    rows.head(50).to_csv(folder / "rows.csv", index=False)
    return folder


def _add(run: Run, folder: Path, *options: object, file: str = "model.skops") -> subprocess.CompletedProcess[str]:
    return run("add", folder / file, "--name", "penguins", "--example", folder / "rows.csv", *options)


def test_add_prints_the_contract(run: Run, penguins: Path, tmp_path: Path) -> None:
    completed = _add(run, penguins)
    assert completed.returncode == 0, completed.stderr
    assert "input: objects of 7 named features" in completed.stdout
    rows = [line.split() for line in completed.stdout.splitlines()]
    assert ["island", "category", "allowed", "Biscoe,", "Dream,", "Torgersen"] in rows
    assert ["body_mass_g", "number", "allowed"] in rows
    assert ["predict", "a", "value", "Adelie,", "Chinstrap,", "Gentoo"] in rows
    assert "\nadded penguins@1;" in completed.stderr  # after the table of runtimes
    assert (tmp_path / "models/penguins/1/manifest.json").exists()


def test_every_limit_is_an_option(run: Run, penguins: Path) -> None:
    limits = {
        "max_batch_instances": 64,
        "max_batch_bytes": 1_000_000,
        "max_batch_wait": 0.01,
        "max_attempts": 5,
        "retry_delay": 0.5,
        "retry_delay_max": 10.0,
        "retry_on": ["Busy", "feature_store.Busy"],
        "soft_time_limit": 2.5,
        "time_limit": 4.0,
        "max_claims": 2,
        "alone": True,
        "load_after_fork": True,
    }
    options: list[object] = []
    for name, value in limits.items():
        option = f"--{name.replace('_', '-')}"
        if value is True:
            options.append(option)
            continue
        for item in value if isinstance(value, list) else [value]:
            options += [option, item]
    assert json.loads(_add(run, penguins, *options, "--json").stdout)["limits"] == limits
    assert set(limits) == {field.name for field in msgspec.structs.fields(Limits)}
    expected = (
        "up to 5 attempts, interrupted after 2.5 s, killed after 4 s, also retried on Busy, feature_store.Busy"
    )
    assert expected in run("show", "penguins").stdout


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--time-limit", "-1"), "--time-limit: expected `float` > 0.0"),
        (("--time-limit", "0"), "--time-limit: expected `float` > 0.0"),
        (("--soft-time-limit", "nan"), "--soft-time-limit: expected `float` > 0.0"),
        (("--time-limit", "inf"), "--time-limit: expected `float` <= 31536000.0"),
        (("--retry-delay", "nan"), "--retry-delay: expected `float` >= 0.0"),
        (("--max-attempts", "0"), "--max-attempts: expected `int` >= 1"),
        (("--max-batch-instances", "0"), "--max-batch-instances: expected `int` >= 1"),
        (("--retry-on", "a b"), "--retry-on: expected the name of an exception class"),
        (("--soft-time-limit", "5", "--time-limit", "5"), "soft_time_limit (5) must be below time_limit (5)"),
    ],
)
def test_an_invalid_limit_is_refused_by_its_name(
    penguins: Path, tmp_path: Path, options: tuple[str, ...], message: str
) -> None:
    example = ["--example", str(penguins / "rows.csv"), "--store", str(tmp_path / "models")]
    completed = CliRunner().invoke(
        models, ["add", str(penguins / "model.skops"), "--name", "p", *example, *options]
    )
    assert completed.exit_code == 2
    assert message in completed.stderr
    assert not (tmp_path / "models").exists()


def test_list_and_show_print_the_versions_of_the_store(run: Run, penguins: Path) -> None:
    _add(run, penguins)
    _add(run, penguins, "--method", "predict_proba")
    listed = run("list")
    assert listed.stdout.splitlines()[1].split()[:3] == ["penguins", "2", "predict_proba"]
    assert json.loads(run("list", "--json").stdout)["version"] == "2"
    assert "penguins@2" in run("show", "penguins").stdout
    first = json.loads(run("show", "penguins@1", "--json").stdout)
    assert first["version"] == "1"
    assert first["contract"]["input"]["features"][0]["name"] == "island"
    assert set(first["libraries"]) == {"python", "scikit-learn", "numpy", "pandas", "skops"}


def test_an_empty_store_is_not_an_error(run: Run) -> None:
    completed = run("list")
    assert (completed.returncode, completed.stdout) == (0, "")
    assert "no models in models" in completed.stderr
    assert run("list", "--json").stdout == ""


def test_the_store_is_an_option_or_a_setting(run: Run, penguins: Path, tmp_path: Path) -> None:
    assert _add(run, penguins, "--store", tmp_path / "one").returncode == 0
    assert json.loads(run("list", "--json", "--store", tmp_path / "one").stdout)["model"] == "penguins"
    assert json.loads(run("list", "--json", HEADRACE_MODELS=str(tmp_path / "one")).stdout)["model"] == "penguins"


def test_an_inferred_contract_can_be_corrected(run: Run, penguins: Path, tmp_path: Path) -> None:
    shown = json.loads(_add(run, penguins, "--json").stdout)
    for feature in shown["contract"]["input"]["features"]:
        feature["nullable"] = feature["name"] in {"sex", "bill_length_mm", "bill_depth_mm", "flipper_length_mm"}
    (tmp_path / "contract.json").write_text(json.dumps(shown))
    refused = _add(run, penguins, "--contract", tmp_path / "contract.json")
    assert refused.returncode == 1
    assert (
        "the example does not fit the contract: instance 3: feature 'body_mass_g' must be a number"
        in refused.stderr
    )
    for feature in shown["contract"]["input"]["features"]:
        feature["nullable"] = feature["name"] not in {"island", "year"}
    (tmp_path / "contract.json").write_text(json.dumps(shown))
    added = json.loads(_add(run, penguins, "--contract", tmp_path / "contract.json", "--json").stdout)
    assert added["version"] == "2"
    nullable = [feature.get("nullable", False) for feature in added["contract"]["input"]["features"]]
    assert nullable == [feature["nullable"] for feature in shown["contract"]["input"]["features"]]


def test_a_pickle_needs_the_option_trust_pickle(run: Run, penguins: Path) -> None:
    refused = _add(run, penguins, file="model.joblib")
    assert refused.returncode == 1
    assert refused.stderr.startswith("headrace: model.joblib is a pickle")
    assert refused.stderr.count("\n") == 1
    added = json.loads(_add(run, penguins, "--trust-pickle", "--json", file="model.joblib").stdout)
    assert added["format"] == "skops"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is no model file"),
        (b"not a model", "is no model file"),
        (b"PK\x03\x04not a zip", "is a damaged archive"),
        (pickle.dumps({"a": "dict"}), "holds a dict, which is no model: it has none of the methods predict"),
    ],
)
def test_an_invalid_model_file_is_an_error_of_one_line(
    run: Run, penguins: Path, tmp_path: Path, content: bytes, message: str
) -> None:
    (tmp_path / "bad.bin").write_bytes(content)
    completed = run("add", "bad.bin", "--name", "penguins", "--example", penguins / "rows.csv", "--trust-pickle")
    assert (completed.returncode, completed.stdout) == (1, "")
    assert completed.stderr.startswith("headrace: bad.bin " + message)
    assert completed.stderr.count("\n") == 1


def test_a_missing_model_or_version_is_an_error_of_one_line(run: Run, penguins: Path) -> None:
    _add(run, penguins)
    for arguments, message in [
        (("show", "pinguins"), "no model 'pinguins' in models; did you mean 'penguins'?"),
        (("show", "penguins@7"), "penguins has no version '7'; it has 1"),
        (("show", "../../etc"), "a model's name is"),
    ]:
        completed = run(*arguments)
        assert (completed.returncode, completed.stdout) == (1, "")
        assert completed.stderr.startswith(f"headrace: {message}")
    usage = run("add", "nowhere.skops", "--name", "x", "--example", penguins / "rows.csv")
    assert usage.returncode == 2
    assert run("add").returncode == 2
    assert run("show").returncode == 2
