"""`headrace batch` in columns: the same output as row by row, whatever is in the file, with a real worker."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import redis
import skops.io
from sklearn.compose import make_column_transformer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from headrace import Client, ResultTimeout
from headrace.batch import predict_file
from headrace.settings import Settings
from headrace.testing import InMemoryClient
from headrace.wire.columns import JsonColumns
from headrace.wire.keys import Keys
from headrace_worker.local.embedded_redis import EmbeddedRedis
from headrace_worker.packaging.package import package
from headrace_worker.store.store import Store
from tests.support.claim_models import KILL, NOTHING, add_model, running_worker
from tests.support.command import headrace
from tests.support.misbehaving_models import action_number, recurse
from tests.support.waiting import wait_until

FORMS = ["arrow", "json"]


def train() -> tuple[Any, pd.DataFrame]:
    chance = np.random.default_rng(7)
    table = pd.DataFrame(
        {
            "income": chance.normal(size=300).round(3),
            "age": chance.integers(18, 90, size=300),
            "member": chance.random(300) < 0.5,
            "plan": chance.choice(["basic", "gold", 'a "quoted" one'], size=300),
        }
    )
    columns = make_column_transformer((OneHotEncoder(handle_unknown="ignore"), ["plan"]), remainder="passthrough")
    return make_pipeline(columns, LogisticRegression(max_iter=2000)), table


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """The URL of a Redis with a worker that serves `churn` and `doubling`, and the path of the model store."""
    folder = tmp_path_factory.mktemp("columns")
    add_model(folder, "doubling", max_batch_instances=4096, max_attempts=1)
    estimator, table = train()
    estimator.fit(table, (table["income"] > 0).astype(int))
    skops.io.dump(estimator, folder / "churn.skops")
    (folder / "churn.json").write_text(table.head(5).to_json(orient="records"))
    package(Store(folder / "models"), folder / "churn.skops", name="churn", example=folder / "churn.json")
    with (
        EmbeddedRedis("--appendfsync", "no") as server,
        running_worker(url=server.url, models=folder / "models", folder=folder, HEADRACE_LEASE="2"),
    ):
        with Client(server.url) as client:
            wait_until(lambda: client.accepted_columns("churn") == {"arrow", "json"})
        yield server.url, folder / "models"


class FormClient(Client):
    """A client of a fleet that takes columns in some forms only."""

    def __init__(self, url: str, *forms: str, **options: Any) -> None:
        super().__init__(url, **options)
        self.forms = frozenset(forms)
        #: The type of the instances of each job, and their number.
        self.sent: list[tuple[str, int]] = []

    def accepted_columns(self, model: str) -> frozenset[str]:
        return self.forms

    def submit(self, model: str, instance: Any = None, **options: Any) -> Any:
        self.sent.append((type(options["instances"]).__name__, len(options["instances"])))
        return super().submit(model, instance, **options)


def predict(site: tuple[str, Path], source: Path, *forms: str, model: str = "churn", **options: Any) -> bytes:
    """Return the output of a batch in the first of these forms that the client has, else row by row."""
    target = source.with_name(f"out{options.pop('ending', '.csv')}")
    with FormClient(site[0], *forms) as client:
        predict_file(client, model, source, target, force=True, **options)
        names = {name for name, _ in client.sent}
    if forms:
        assert names & {"ArrowColumns", "JsonColumns"}, "nothing was sent in columns"
    return target.read_bytes()


HEADER = "id,income,age,member,plan\n"
FILES = {
    "plain": HEADER + "".join(f"{n},{n / 7},{n % 70},{n % 2 == 0},gold\n" for n in range(3000)),
    "crlf": (HEADER + "".join(f"{n},{n / 7},{n % 70},yes,basic\n" for n in range(50))).replace("\n", "\r\n"),
    "no last line feed": HEADER + "1,1.5,30,true,gold",
    "quotes": HEADER + '1,1.5,30,true,"a ""quoted"" one"\n2,-1,40,no,gold\n"3\n3",2,20,0,gold\n',
    "blank lines": HEADER + "\n1,1,30,true,gold\n\n\n2,x,31,true,gold\n\n3,1,32,true,gold\n",
    "floats for integers": HEADER + "1,1,30.0,true,gold\n2,2,31.0,FALSE,gold\n3,3,1e1,0.0,gold\n",
    "half an integer": HEADER + "1,1,30.0,true,gold\n2,2,31.5,true,gold\n",
    "large integers": HEADER + f"1,1,{2**53 + 1},true,gold\n2,1,{2**63},true,gold\n3,1,5,true,gold\n",
    "odd numbers": HEADER + "".join(f"1,{text},30,true,gold\n" for text in (
        " 1.5 ", "+1", "1_0", "inf", "-Infinity", "nan", "NA", "", "1e400", "0x10", ".5", "5.", "1d3", "\uff11"
    )),
    "odd integers": HEADER + "".join(f"1,1,{text},true,gold\n" for text in (
        "0x1F", "007", "-0", "1_0", " 5", "5 ", "", "NaN", "9" * 30, "1e2", "+3"
    )),
    "odd booleans": HEADER + "".join(f"1,1,30,{text},gold\n" for text in (
        "TRUE", "True", "tRue", "1", "1.0", " yes ", "", "2", "No"
    )),
    "odd texts": HEADER + "".join(f"1,1,30,true,{text}\n" for text in ("gold ", "", "NA", "ärger", "unknown")),
    "ragged": HEADER + "1,1,30,true,gold\n2,1,30,true\n3,1,30,true,gold,more\n4,1,30,true,gold\n",
    "further and reordered columns": "plan,note,member,age,income\ngold,a note,true,30,1\nbasic,,no,31,2\n",
    "semicolons": HEADER.replace(",", ";") + "1;1.5;30;true;gold\n2;x;30;true;gold\n",
    "a zero byte": HEADER + "1,1,30,true,go\0ld\n2,1,30,true,gold\n",
    "one column short of rows": HEADER,
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", FILES)
def test_the_output_in_columns_is_that_of_rows_byte_for_byte(site, tmp_path, name, form):
    source = tmp_path / "in.csv"
    source.write_bytes(FILES[name].encode())
    for ending in (".csv", ".jsonl", ".tsv"):
        expected = predict(site, source, ending=ending)
        forms = [form] if len(FILES[name].splitlines()) > 1 else []
        assert predict(site, source, *forms, ending=ending) == expected, ending
    assert predict(site, source, method="predict_proba") == predict(site, source, *forms, method="predict_proba")


@pytest.mark.parametrize("form", FORMS)
def test_json_lines_in_columns_have_the_output_of_rows(site, tmp_path, form):
    source = tmp_path / "in.jsonl"
    rows = [{"id": n, "income": n / 7, "age": n % 70, "member": True, "plan": "gold"} for n in range(300)]
    rows[7]["age"], rows[8]["income"], rows[9]["plan"] = "old", None, ["x"]
    del rows[10]["plan"]
    source.write_text("".join(json.dumps(row) + "\n" for row in rows) + "nonsense\n")
    for ending in (".jsonl", ".csv"):
        assert predict(site, source, form, ending=ending) == predict(site, source, ending=ending)


def test_each_job_has_ten_thousand_rows_in_arrow_and_five_hundred_in_json(site, tmp_path):
    source = tmp_path / "in.csv"
    source.write_text(HEADER + "1,1.5,30,true,gold\n" * 25_000)
    for form, kind, size in (("arrow", "ArrowColumns", 10_000), ("json", "JsonColumns", 500)):
        with FormClient(site[0], form) as client:
            with redis.Redis.from_url(site[0]) as server:
                former = set(server.keys("celery-task-meta-*"))
            report = predict_file(client, "churn", source, tmp_path / f"{form}.csv")
            assert client.sent[:2] == [(kind, size), (kind, size)]
            assert (report.rows, report.failed, report.largest_job) == (25_000, 0, size)
            with redis.Redis.from_url(site[0]) as server:
                assert set(server.keys("celery-task-meta-*")) <= former, "what was read is forgotten"


@pytest.mark.parametrize("form", FORMS)
def test_a_row_that_fails_or_kills_its_process_fails_alone(site, tmp_path, form):
    source = tmp_path / "in.csv"
    rows = [[n, NOTHING, 0] for n in range(400)]
    rows[5][1], rows[123][1] = action_number(recurse), KILL
    source.write_text("n,action,seconds\n" + "".join(f"{a},{b},{c}\n" for a, b, c in rows))
    output = predict(site, source, form, model="doubling").decode().splitlines()[1:]
    failed = {number: line for number, line in enumerate(output) if not line.endswith(",")}
    assert failed.keys() == {5, 123}
    assert "line 7: permanent: RecursionError: " in failed[5]
    assert "line 125: crash: WorkerLostError: " in failed[123]
    assert all(line.split(",")[3] == str(2.0 * n) for n, line in enumerate(output) if n not in failed)


def test_a_fleet_with_a_worker_that_does_not_say_it_takes_columns_gets_rows(site, tmp_path):
    keys, source = Keys(), tmp_path / "in.csv"
    source.write_text(HEADER + "1,1.5,30,true,gold\n" * 250)
    with redis.Redis.from_url(site[0]) as server, Client(site[0]) as client:
        (status,) = server.hgetall(keys.loaded("churn")).values()
        older = {name: value for name, value in json.loads(status).items() if name != "columns"}
        server.hset(keys.loaded("churn"), "older", json.dumps({**older, "at_ms": 10**13}))
        try:
            assert client.accepted_columns("churn") == frozenset()
            assert predict_file(client, "churn", source, tmp_path / "out.csv").largest_job == 100
        finally:
            server.hdel(keys.loaded("churn"), "older")
    with Client(site[0]) as client:
        assert client.accepted_columns("nobody") == frozenset()


def test_a_signature_covers_the_columns(tmp_path, site):
    secret = base64.b64encode(b"x" * 32).decode()
    columns = JsonColumns({"income": [1.0], "age": [30], "member": [True], "plan": ["gold"]}, 1)
    with (
        EmbeddedRedis("--appendfsync", "no") as own,
        Client(settings=Settings(redis_url=own.url, job_keys=f"k:{secret}"), check=False) as client,
        redis.Redis.from_url(own.url) as server,
    ):
        jobs = [client.submit("churn", instances=columns) for _ in range(2)]
        changed = json.loads(server.lpop("predict.churn"))
        body = base64.b64decode(changed["body"])
        changed["body"] = base64.b64encode(body.replace(b'"income":[1.0]', b'"income":[9.0]')).decode()
        assert changed["body"] != base64.b64encode(body).decode()
        server.lpush("predict.churn", json.dumps(changed))
        settings = {"HEADRACE_JOB_KEYS": f"k:{secret}"}
        with running_worker(url=own.url, models=site[1], folder=tmp_path, **settings):
            outcomes = sorted(
                (job.outcome(timeout=30) for job in jobs), key=lambda outcome: type(outcome).__name__
            )
    assert outcomes[1].prediction.predictions in ([0], [1])
    assert outcomes[0].error == "NotTrusted"


def test_a_dead_letter_of_columns_is_explained_and_replayed(site):
    columns = JsonColumns({"income": [1.0, 2.0]}, 2)  # lacks columns, so the job fails as a whole
    with Client(site[0]) as client:
        job = client.submit("churn", instances=columns)
        assert job.outcome(timeout=30).reason == "bad input"
        assert job.explain().status == "failure"
        (letter,) = [letter for letter in client.dead_letters.list() if letter.id == job.id]
        assert letter.instances == 2
        assert "2.0" in headrace("dead", "show", job.id, "--payload", "--url", site[0]).stdout
        assert client.dead_letters.replay(ids=[job.id]).done == 1
        wait_until(lambda: client.job(job.id).status() == "failure")
        client.dead_letters.purge(ids=[job.id])


def test_the_in_memory_client_takes_columns(tmp_path):
    source = tmp_path / "in.csv"
    source.write_text("n\n1\n2\n")
    client = InMemoryClient({"doubling": lambda rows: [2 * row["n"] for row in rows]})
    job = client.submit("doubling", instances=JsonColumns({"n": [1, 2]}, 2))
    assert job.result().predictions == [2, 4]


def test_the_memory_of_a_client_without_pyarrow_stays_under_60_mb(site, tmp_path):
    source, target = tmp_path / "in.csv", tmp_path / "out.csv"
    source.write_text(HEADER.replace("id,", "id,note,") + f"7,{'a note ' * 40},0.1234567,41,true,gold\n" * 40_000)
    program = (
        "import sys\nsys.modules['pyarrow'] = None\nfrom headrace.cli import main\ntry:\n    main()\nfinally:\n"
        "    print(*(line for line in open('/proc/self/status') if 'VmHWM' in line), file=sys.stderr)\n"
    )
    command = [sys.executable, "-c", program, "batch", "churn", str(source), "-o", str(target), "--json"]
    result = subprocess.run(
        [*command, "--url", site[0]], capture_output=True, text=True, env=os.environ, timeout=100
    )
    assert json.loads(result.stdout)["largest_job"] == 500, result.stderr
    assert int(result.stderr.split("VmHWM:")[1].split()[0]) < 60_000


# --- resume ---


def kill_when(command: list[str], condition) -> None:
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, env=os.environ) as run:
        wait_until(condition, 30)
        run.kill()


@pytest.mark.parametrize("form", [*FORMS, "rows"])
def test_a_killed_run_is_resumed_to_the_output_of_an_undisturbed_one(site, tmp_path, form):
    source, target = tmp_path / "in.csv", tmp_path / "out.csv"
    rows = [f"{n},{n / 7},{n % 70},true,{'gold' if n % 50 else 'a, b'}\n" for n in range(20_000)]
    rows[7_777] = "7777,x,1,true,gold\n"
    source.write_text(HEADER + "".join(row.replace("a, b", '"a, b"') for row in rows))
    expected = predict(site, source, *([form] if form != "rows" else []))
    target.unlink()
    program = (
        "import sys, time\nsys.path.insert(0, sys.argv[5])\n"
        "from tests.acceptance.test_batch_columns import FormClient\n"
        "from headrace.batch import predict_file\n"
        "with FormClient(sys.argv[1], sys.argv[2]) as client:\n"
        "    predict_file(client, 'churn', sys.argv[3], sys.argv[4], rows_per_job=500, in_flight=2,\n"
        "                 on_progress=lambda _: time.sleep(0.0002))\n"
    )
    root = str(Path(__file__).parents[2])
    kill_when([sys.executable, "-c", program, site[0], form, str(source), str(target), root], lambda: any(
        json.loads(path.read_bytes())["rows"] > 2_000 for path in tmp_path.glob(".*.headrace-progress")
    ))  # fmt: skip
    assert not target.exists()
    with FormClient(site[0], form) as client:
        report = predict_file(client, "churn", source, target, resume=True)
        assert report.rows == 20_000
        assert report.failed >= 1
        assert sum(size for _, size in client.sent) < 18_500, "the finished rows are not predicted again"
    assert target.read_bytes() == expected
    assert sorted(tmp_path.iterdir()) == [source, target]


def test_a_run_that_ends_is_resumed_and_one_without_resume_starts_afresh(site, tmp_path):
    source, target = tmp_path / "in.jsonl", tmp_path / "out.csv"
    row = {"income": 1.5, "age": 30, "member": True, "plan": "gold"}
    source.write_text("".join(json.dumps({**row, "income": n}) + "\n" for n in range(2_000)))
    expected = predict(site, source)
    (tmp_path / "out.csv").unlink()

    def stop(progress):
        if progress.rows > 900:
            raise ResultTimeout("enough")

    with FormClient(site[0], "json") as client:
        with pytest.raises(ResultTimeout):
            predict_file(client, "churn", source, target, rows_per_job=300, resume=True, on_progress=stop)
        assert len(list(tmp_path.glob(".*"))) == 2, "the part and its checkpoint"
        source_time = source.stat().st_mtime_ns
        os.utime(source, ns=(0, 0))
        with pytest.raises(Exception, match="its input, model or options were others"):
            predict_file(client, "churn", source, target, resume=True)
        os.utime(source, ns=(source_time, source_time))
        client.sent.clear()
        assert predict_file(client, "churn", source, target, resume=True).rows == 2_000
        assert sum(size for _, size in client.sent) == 1_100
        assert target.read_bytes() == expected
        client.sent.clear()
        assert predict_file(client, "churn", source, target, force=True).rows == 2_000
        assert sum(size for _, size in client.sent) == 2_000
    assert list(tmp_path.glob(".*")) == []


def test_standard_input_cannot_be_resumed(site):
    result = headrace(
        "batch", "churn", "-", "-o", "-", "--format", "csv", "--resume", "--url", site[0], stdin="x\n"
    )
    assert (result.returncode, "only a run from a file to a file" in result.stderr) == (1, True)


def test_standard_input_goes_through_columns_to_standard_output(site):
    lines = HEADER + "".join(f"{n},{n / 7},{n % 70},true,gold\n" for n in range(12_000))
    result = headrace("batch", "churn", "-", "-o", "-", "--format", "csv", "--json", "--url", site[0], stdin=lines)
    assert result.returncode == 2
    result = headrace("batch", "churn", "-", "-o", "-", "--format", "csv", "--url", site[0], stdin=lines)
    assert result.returncode == 0, result.stderr
    assert len(result.stdout.splitlines()) == 12_001
