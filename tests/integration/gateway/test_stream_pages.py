"""The commands and programs of the pages about files and events over HTTP, as a reader runs them."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from headrace import Client
from tests.support import ROOT
from tests.support.gateway import RunningGateway
from tests.support.served_worker import Site, client

__all__ = ["client"]  # fixtures

FILES_PAGE = (ROOT / "docs/how-to/predict-a-file-over-http.md").read_text()
EVENTS_PAGE = (ROOT / "docs/how-to/follow-jobs-in-a-browser.md").read_text()
ADDRESS = "http://127.0.0.1:8080"
NODE = shutil.which("node")


def blocks(page: str, language: str) -> list[str]:
    """Return the blocks of a page in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", page, re.M | re.S)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the files of the page."""
    (tmp_path / "customers.csv").write_text("id,age,plan\n1,41,gold\n2,,basic\n3,old,basic\n")
    (tmp_path / "customers.ndjson").write_text('{"age": 41, "plan": "gold"}\n{"age": 29, "plan": "basic"}\n')
    return tmp_path


def run(command: list[str], folder: Path) -> str:
    output = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60)
    assert output.returncode == 0, output.stderr
    return output.stdout


def test_the_commands_of_the_page_about_files_predict_them(gateway: RunningGateway, folder: Path) -> None:
    plain, ndjson, probabilities, packed = [
        text.replace(ADDRESS, gateway.url).replace("curl ", "curl -sS --fail ")
        for text in blocks(FILES_PAGE, "sh")
    ]
    for command in (plain, packed):
        run(["sh", "-ec", command], folder)
        header, *rows = (folder / "predicted.csv").read_text().splitlines()
        assert header == "id,age,plan,prediction,error"
        assert [row.count(",") >= 4 for row in rows] == [True] * 3
        assert rows[2].startswith('3,old,basic,,"line 4: ') or rows[2].startswith("3,old,basic,,line 4: ")
        (folder / "predicted.csv").unlink()
    assert run(["sh", "-ec", probabilities], folder).startswith("id,age,plan,prediction_0,prediction_1,error\n")
    assert run(["sh", "-ec", ndjson], folder) == blocks(FILES_PAGE, "json")[0]


def test_the_python_program_of_the_page_about_files_writes_the_predictions(
    gateway: RunningGateway, folder: Path
) -> None:
    (program,) = blocks(FILES_PAGE, "python")
    run([sys.executable, "-c", program.replace(ADDRESS, gateway.url)], folder)
    assert (folder / "predicted.csv").read_text().startswith("id,age,plan,prediction,error\n1,41,gold,")


def test_the_python_program_of_the_page_about_events_yields_the_outcome(
    gateway: RunningGateway, client: Client, folder: Path
) -> None:
    job = client.submit("doubling", [21, 0, 0])
    (program,) = blocks(EVENTS_PAGE, "python")
    program += f"for job in follow('{gateway.url}/v1/jobs/{job.id}/events'): print(json.dumps(job))"
    *_, last = run([sys.executable, "-c", program], folder).splitlines()
    assert json.loads(last)["predictions"] == [42.0]


def test_curl_shows_a_stream_as_it_is(gateway: RunningGateway, client: Client, folder: Path) -> None:
    job = client.submit("doubling", [21, 0, 0])
    (command,) = blocks(EVENTS_PAGE, "sh")
    stream = run(["sh", "-c", f"JOB={job.id}; {command.replace(ADDRESS, gateway.url)}"], folder)
    assert stream.startswith("retry: 2000\n\n")
    assert "event: success\nid: success\ndata: {" in stream


@pytest.mark.skipif(NODE is None, reason="no node on PATH; on Debian: apt-get install nodejs")
def test_the_javascript_with_fetch_yields_the_outcomes_and_the_text_of_a_problem(
    gateway: RunningGateway, client: Client, folder: Path, shared: Site
) -> None:
    jobs = [job.id for job in client.submit_many("doubling", shared.rows(3))]
    query = "&".join(f"job={job}" for job in jobs)
    program = next(text for text in blocks(EVENTS_PAGE, "js") if "fetch(" in text) + (
        f"for await (const job of events('{gateway.url}/v1/events?{query}')) console.log(JSON.stringify(job));\n"
        f"try {{ for await (const job of events('{gateway.url}/v1/jobs/none/events', 'key')) {{}} }}\n"
        "catch (error) { console.log(error.message); }\n"
    )
    assert NODE is not None
    *lines, problem = run([NODE, "--input-type=module", "-e", program], folder).splitlines()
    assert sorted(json.loads(line)["id"] for line in lines) == sorted(jobs)
    assert problem.startswith("there is no such job")
