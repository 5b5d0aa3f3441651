"""KServe's SDK, MLServer's codecs and MLflow's client call a gateway, unchanged: `make test-clients`."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tests.support import ROOT
from tests.support.gateway import RunningGateway, running_gateway
from tests.support.open_inference_page import PROGRAMS, program
from tests.support.served_worker import Site, shared, store

__all__ = ["shared", "store"]  # fixtures

pytestmark = [pytest.mark.long, pytest.mark.timeout(300)]

FOLDER = Path(__file__).parent


@pytest.fixture(scope="module")
def gateway(shared: Site) -> Iterator[RunningGateway]:
    """A gateway of the shared site, whose `/invocations` is for `churn`."""
    with running_gateway(shared.url, shared.folder, HEADRACE_GATEWAY_MODEL="churn") as gateway:
        yield gateway


@pytest.fixture(scope="module")
def table(shared: Site) -> pd.DataFrame:
    """Sixty customers, two of them without an age."""
    table: pd.DataFrame = shared.demo["churn"][1].unseen[:60]
    assert table["age"].isna().sum() == 2
    return table


def execute(environment: str, *arguments: str) -> str:
    """Run the Python of an environment, and return what it printed."""
    python = ROOT / environment / "bin" / "python"
    done = subprocess.run([python, *arguments], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def run(name: str, environment: str, *arguments: str) -> Any:
    """Run a program of this folder in an environment of its own, and return what it printed as JSON."""
    return json.loads(execute(environment, str(FOLDER / name), *arguments))


def test_kserves_sdk_gets_what_scikit_learn_predicts(
    gateway: RunningGateway, shared: Site, table: pd.DataFrame
) -> None:
    answers = run("with_kserve.py", ".venv-kserve", gateway.url, table.to_json(orient="records"))
    estimator = shared.demo["churn"][1].estimator
    assert (answers["live"], answers["ready"], answers["models"]) == (True, True, [True, False])
    labels = estimator.predict(table).tolist()
    expected = {"predict": labels, "predict_proba": estimator.predict_proba(table).tolist()}
    assert answers["binary"] == ["4711", "churn", expected]
    assert answers["json"] == ["4711", "churn", expected]
    assert "must be a list of 8 x 8 values, got a list of 2" in answers["error"]
    assert (answers["v1 ready"], answers["v1"]) == (True, labels)


def test_requests_of_mlservers_codecs_are_predicted_as_by_scikit_learn(
    gateway: RunningGateway, shared: Site, table: pd.DataFrame
) -> None:
    estimator, images = shared.demo["digits"][1]
    arguments = (gateway.url, table.to_json(orient="records"), json.dumps(images[:3].tolist()))
    answers = run("with_mlserver.py", ".venv-mlserver", *arguments)
    assert answers["images"] == estimator.predict(images[:3]).tolist()
    estimator = shared.demo["churn"][1].estimator
    assert answers["frame"] == estimator.predict_proba(table).tolist()
    assert answers["labels"] == estimator.predict(table).tolist()
    assert answers["content type of mixed values"] == "pd_json"


def test_mlflows_client_gets_what_scikit_learn_predicts(
    gateway: RunningGateway, shared: Site, table: pd.DataFrame
) -> None:
    answers = run("with_mlflow.py", ".venv-kserve", gateway.url, table.to_json(orient="records"))
    estimator = shared.demo["churn"][1].estimator
    labels = estimator.predict(table).tolist()
    assert answers["frame"] == answers["array"] == answers["typed"] == labels
    assert answers["params"] == estimator.predict_proba(table).tolist()
    assert "INVALID_PARAMETER_VALUE" in answers["error"]
    assert "feature 'plan' is missing" in answers["error"]


def test_the_program_of_the_page_prints_what_the_page_shows(gateway: RunningGateway, tmp_path: Path) -> None:
    file = tmp_path / "with_kserve.py"
    file.write_text(program("with_kserve.py", gateway.url.removeprefix("http://")))
    assert execute(".venv-kserve", str(file)) == PROGRAMS["with_kserve.py"][1]
