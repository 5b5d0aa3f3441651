"""The programs of docs/how-to/predict-in-an-engine.md run on the real engines: `make test-engines`."""

from __future__ import annotations

import os
import signal
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import pytest

from tests.support import ROOT
from tests.support.customers import predict_rows
from tests.support.engine_page import PROGRAMS, make_folder, read_scores

pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]

PYTHON = ROOT / ".venv-engines" / "bin" / "python"
#: Seconds that an engine may take to start and to predict.
_SECONDS = 240


class Site(NamedTuple):
    """A folder with the table and the store."""

    folder: Path
    table: pd.DataFrame
    environ: dict[str, str]
    #: The predictions of the path of rows.
    expected: list[Any]

    def run(self, program: str, folder: Path, **environ: str) -> subprocess.CompletedProcess[str]:
        """Run a program in a folder of its own beside the table. No process of its engine remains."""
        (folder / "customers").symlink_to(self.folder / "customers")
        file = folder / "program.py"
        file.write_text(program)
        settings = {
            **self.environ,
            "PYSPARK_PYTHON": str(PYTHON),
            "SPARK_LOCAL_IP": "127.0.0.1",
            "RAY_DISABLE_IMPORT_WARNING": "1",
            "RAY_USAGE_STATS_ENABLED": "0",
            **environ,
        }
        process = subprocess.Popen(
            [str(PYTHON), str(file)],
            cwd=folder,
            env=settings,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            output, errors = process.communicate(timeout=_SECONDS)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        return subprocess.CompletedProcess([], process.returncode, output, errors)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    folder = tmp_path_factory.mktemp("site")
    table, environ = make_folder(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HEADRACE_TRUST_PICKLE", "true")
        return Site(folder, table, environ, predict_rows(folder / "models", "churn", table))


def _read_loads(file: Path) -> list[str]:
    return file.read_text().split() if file.exists() else []


ENGINES = ["with_ray.py", "with_dask.py", "with_spark.py", "with_duckdb.py"]


@pytest.mark.parametrize("name", ENGINES)
def test_a_program_of_the_page_predicts_as_rows_are_predicted(name: str, site: Site, tmp_path: Path) -> None:
    completed = site.run(PROGRAMS[name], tmp_path, FINGERPRINT_LOADS=str(tmp_path / "loads"))
    assert completed.returncode == 0, completed.stderr[-3000:]
    scores = read_scores(tmp_path)
    expected = pd.Series(site.expected, index=site.table["customer"])
    if name == "with_duckdb.py":
        expected = expected[(site.table["visits"] > 0).to_numpy()]
    assert list(scores.columns) == ["customer", "plan", "prediction", "error"]
    assert scores["customer"].tolist() == expected.index.tolist()
    assert scores["prediction"].tolist() == expected.tolist()
    assert scores["error"].isna().all()
    loads = _read_loads(tmp_path / "loads")
    assert len(loads) == len(set(loads)) > 0, "a process loaded the model more than once"


#: By the program of the page, a replacement that makes a run of another kind.
VARIANTS = {
    "Ray actors": (
        "with_ray.py",
        'map_batches(score, batch_format="pyarrow", batch_size=10_000)',
        """map_batches(
            Predictor,
            fn_constructor_args=["churn@1"],
            fn_constructor_kwargs={"key": "customer", "keep": ["plan"]},
            batch_format="pyarrow",
            batch_size=500,
            compute=ray.data.ActorPoolStrategy(size=1),
        )""",
    ),
    "Ray with pandas": ("with_ray.py", 'batch_format="pyarrow"', 'batch_format="pandas"'),
    # Spark gives pandas its timestamps as readings of the clock in the zone of the session.
    "Spark with pandas": (
        "with_spark.py",
        "mapInArrow(score.frames,",
        """mapInPandas(
            lambda frames: score.frames(
                frame.assign(renewed=frame["renewed"].dt.tz_localize("Asia/Tokyo")) for frame in frames
            ),""",
    ),
    "Dask with a forkserver": (
        "with_dask.py",
        "    score =",
        """\
    import dask, distributed
    dask.config.set({"distributed.worker.multiprocessing-method": "forkserver"})
    cluster = distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None)
    client = distributed.Client(cluster)
    score =""",
    ),
    "Dask in threads": ("with_dask.py", '"processes"', '"threads"'),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_other_ways_of_an_engine_predict_the_same(variant: str, site: Site, tmp_path: Path) -> None:
    name, former, replacement = VARIANTS[variant]
    assert former in PROGRAMS[name]
    program = PROGRAMS[name].replace(former, replacement)
    if variant == "Dask with a forkserver":
        program = program.replace(', compute_kwargs={"scheduler": "processes"}', "")
    program = program.replace("builder.", 'builder.config("spark.sql.session.timeZone", "Asia/Tokyo").')
    completed = site.run(program, tmp_path, FINGERPRINT_LOADS=str(tmp_path / "loads"))
    assert completed.returncode == 0, completed.stderr[-3000:]
    scores = read_scores(tmp_path)
    assert scores["error"].dropna().tolist() == []
    assert scores["prediction"].tolist() == site.expected
    loads = _read_loads(tmp_path / "loads")
    assert len(loads) == len(set(loads)) > 0


#: The expression of each engine that makes column `visits` a number that is no integer in two rows.
_BAD = {
    "with_ray.py": (
        'read_parquet("customers")',
        """read_parquet("customers").map_batches(
            lambda t: t.assign(visits=t.visits.astype(float) + 0.5 * (t.customer.astype(int) % 1500 == 0)),
            batch_format="pandas",
        )""",
    ),
    "with_dask.py": (
        'read_parquet("customers")',
        'read_parquet("customers").assign(visits=lambda t: t.visits + 0.5 * (t.customer % 1500 == 0))',
    ),
    "with_spark.py": (
        'read.parquet("customers")',
        """read.parquet("customers").selectExpr(
            "* except (visits)", "visits + if(customer % 1500 = 0, 0.5D, 0D) as visits"
        )""",
    ),
    "with_duckdb.py": (
        "from 'customers/*.parquet' where visits > 0",
        "select * replace (visits + 0.5 * (customer % 1500 = 0)::int as visits) from 'customers/*.parquet'",
    ),
}


@pytest.mark.parametrize("name", ENGINES)
def test_bad_rows_have_their_errors_and_the_others_predictions(name: str, site: Site, tmp_path: Path) -> None:
    former, replacement = _BAD[name]
    assert former in PROGRAMS[name]
    completed = site.run(PROGRAMS[name].replace(former, replacement), tmp_path)
    assert completed.returncode == 0, completed.stderr[-3000:]
    scores = read_scores(tmp_path)
    is_bad = (site.table["customer"] % 1_500 == 0).to_numpy()
    assert is_bad.sum() == 2
    assert scores["error"].notna().tolist() == is_bad.tolist()
    assert scores["prediction"].isna().tolist() == is_bad.tolist()
    assert "'visits' must be an integer" in scores["error"][is_bad].iloc[0]
    good = [value for value, bad in zip(site.expected, is_bad, strict=True) if not bad]
    assert scores["prediction"][~is_bad].tolist() == good


@pytest.mark.parametrize("name", ENGINES)
def test_on_error_raise_ends_the_run_with_the_error(name: str, site: Site, tmp_path: Path) -> None:
    former, replacement = _BAD[name]
    program = PROGRAMS[name].replace(former, replacement).replace('keep=["plan"]', 'keep=[], on_error="raise"')
    completed = site.run(program, tmp_path)
    assert completed.returncode != 0
    assert "failed: bad input: feature 'visits' must be an integer" in completed.stdout + completed.stderr
