"""The benchmark suite runs, checks every prediction, and writes its results. No duration is asserted."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import redis

from benchmarks import pool_replacement_page, report
from benchmarks.__main__ import main, update
from benchmarks.command_counts import Counts, ScriptCounter
from benchmarks.models import BOOSTERS
from headrace.wire.keys import Keys
from headrace_worker.local.embedded_redis import EmbeddedRedis
from headrace_worker.transport.claims import ClaimLimits
from headrace_worker.transport.leases import Leases

ROOT = Path(__file__).parents[2]

#: The first test waits for the run.
pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], str]:
    """Run the suite with small sizes beside plain Celery; return its results and its output."""
    out = tmp_path_factory.mktemp("bench") / "results.json"
    command = [sys.executable, "-m", "tests.support.forking_program", "benchmarks", "--short"]
    command += ["--seconds", "0.1", "--deepest", "2000"]
    # Celery runs in this environment, so that nothing is downloaded.
    command += ["--peers", "headrace,celery,mayu", "--more", "depths,telemetry,boosters,fleet", "--out", str(out)]
    command += ["--servers", "valkey"]
    command += ["--environment", f"main={sys.executable}", "--environment", "mayu=/no/such/python"]
    completed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=540)
    assert completed.returncode == 0, completed.stderr[-2000:]
    return json.loads(out.read_text()), completed.stdout


def test_every_peer_has_its_numbers(run: tuple[dict[str, Any], str]) -> None:
    peers = {row["name"]: row for row in run[0]["peers"]}
    assert set(peers) == {"headrace", "celery"}
    for row in peers.values():
        assert set(row["jobs_per_second"]) == {"logistic", "forest", "boosting"}
        assert all(rate > 0 for rate in row["jobs_per_second"].values())
        assert row["submits_per_second"]["single"] > 0
        assert row["round_trip_ms"]["p50"] <= row["round_trip_ms"]["p99"]
        assert row["versions"]


def test_boosters_are_measured_beside_plain_celery(run: tuple[dict[str, Any], str]) -> None:
    rates = {row["name"]: row["jobs_per_second"] for row in run[0]["boosters"]["peers"]}
    assert rates.keys() == {"headrace", "celery"}
    targets = {row["target"]: row["measured"] for row in run[0]["targets"]}
    for name, title in BOOSTERS.items():
        ratio = rates["headrace"][name] / rates["celery"][name]
        assert targets[f"jobs/s, {title}, relative to the best plain Celery"] == pytest.approx(ratio)


def test_deep_queues_are_measured_on_the_chosen_servers(run: tuple[dict[str, Any], str]) -> None:
    (server,) = run[0]["depths"]["servers"]
    assert server["server"].startswith("Valkey 9")
    assert [row["depth"] for row in server["rows"]] == [1_000, 2_000]
    assert all(row["jobs_per_second"] > 0 and row["redis_cpu_us"] > 0 for row in server["rows"])
    assert [row["of_shallow"] > 0 for row in server["rows"]] == [True, True]


def test_a_fleet_is_counted_idle_and_for_each_job(run: tuple[dict[str, Any], str]) -> None:
    (fleet,) = run[0]["fleet"]["fleets"]
    assert (fleet["workers"], fleet["models"]) == (2, 2)
    # A job is submitted by one script, claimed by a script or a BLMOVE, and published by one script.
    scripts = fleet["each_script_per_job"]
    assert scripts["enqueue"] == 1
    # A pool process first tries whether the script is a function; one of both has done so before the count.
    assert scripts["publish_claim"] in {1, 1 + 1 / 10}
    assert fleet["claims_per_job"] >= 1
    assert fleet["commands_per_job"] > fleet["scripts_per_job"] > 2
    assert fleet["idle"]["commands_per_second"] > 0
    assert 0 < fleet["round_trip_ms"]["p50"] <= fleet["round_trip_ms"]["p99"]


def test_many_workers_without_pool_processes_are_counted_idle(run: tuple[dict[str, Any], str]) -> None:
    many = run[0]["fleet"]["many"]
    assert (many["workers"], many["models"]) == (3, 3)
    assert many["idle"]["commands_per_second"] > 0


def test_the_first_outcome_after_an_outage_is_timed(run: tuple[dict[str, Any], str]) -> None:
    outage = run[0]["fleet"]["outage"]
    assert outage["seconds_away"] == 5
    assert len(outage["every_first_outcome"]) == outage["outages"] == 1
    assert 0 < outage["max"] < 60


def test_scripts_are_counted_by_name_and_blocking_claims_beside_them() -> None:
    with EmbeddedRedis() as server, redis.Redis(port=server.port) as client:
        counter, leases = ScriptCounter(server.port), Leases(client, Keys(""))
        leases.claim("owner/0", [ClaimLimits(queue="predict.churn")], lease_ms=1000)  # tries each form of a call
        with counter.counting() as calls:
            for number in range(1, 4):
                leases.claim(f"owner/{number}", [ClaimLimits(queue="predict.churn")], lease_ms=1000)
            client.blmove("from", "to", 0.01, "RIGHT", "LEFT")
            client.set("blmove", "evalsha")  # names in arguments are not counted
        assert calls == {"claim": 3, "blmove": 1}


def test_counts_beyond_idle_leave_out_what_an_idle_fleet_does_in_the_time() -> None:
    idle = Counts(seconds=2, commands=20, scripts=4, cpu_seconds=0.2)
    assert Counts(seconds=5, commands=80, scripts=10, cpu_seconds=0.7).beyond(idle)[1:] == pytest.approx(
        (30, 0, 0.2)
    )


def test_an_update_replaces_a_separate_measurement_and_keeps_the_others(
    run: tuple[dict[str, Any], str], tmp_path: Path
) -> None:
    file = tmp_path / "results.json"
    file.write_text(json.dumps(run[0]))
    updated = update(file, {"peers": [], "fleet": {"fleets": [], "many": {}, "outage": {"max": 2.5}}})
    assert updated["peers"] == run[0]["peers"]
    assert updated["depths"] == run[0]["depths"]
    outcome = next(row for row in updated["targets"] if row["target"].startswith("first outcome"))
    assert outcome["text"] == "2.5 s"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--more", "depth"], "unknown measurements depth"),
        (["--servers", "memcached"], "unknown servers memcached"),
        (["--update", "--more", "fleet,pools"], "--update does not measure pools"),
    ],
)
def test_a_mistyped_option_is_refused_before_anything_is_measured(
    arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["benchmarks", *arguments])
    with pytest.raises(SystemExit):
        main()
    assert message in capsys.readouterr().err


def test_a_peer_that_cannot_run_is_listed_with_the_reason(run: tuple[dict[str, Any], str]) -> None:
    (peer,) = run[0]["left_out"]
    assert peer["name"] == "mayu"
    assert "/no/such/python" in peer["reason"]


def test_each_target_is_evaluated_or_reported_as_not_measured(run: tuple[dict[str, Any], str]) -> None:
    for row in run[0]["targets"]:
        assert (row["measured"] is None) == (row["met"] is None) == (row["text"] == "not measured")
    memory = next(row for row in run[0]["targets"] if "memory" in row["target"])
    assert memory["measured"] is not None
    telemetry = next(row for row in run[0]["targets"] if "OpenTelemetry" in row["target"])
    assert telemetry["text"].endswith(" %")
    assert run[0]["telemetry_cost"]["share_of_off"].keys() == {"on", "logged"}


def test_the_output_names_the_machine_and_the_peers(run: tuple[dict[str, Any], str]) -> None:
    assert "appendfsync everysec" in run[1]
    assert "Celery" in run[1]
    assert "left out:" in run[1]


def test_the_page_of_pool_replacements_shows_the_stored_results(tmp_path: Path) -> None:
    results = json.loads((ROOT / "benchmarks" / "results" / "swap.json").read_text())
    page = tmp_path / "swapping.md"
    page.write_text(before := (ROOT / "docs" / "swapping.md").read_text())
    pool_replacement_page.write_into(page, results)
    assert page.read_text() == before


@pytest.mark.long
def test_pool_replacements_are_measured_under_load_without_a_failed_job() -> None:
    command = [sys.executable, "-m", "benchmarks.pool_replacement", "--replacements", "1", "--commands", "1"]
    command += ["--seconds", "1", "--megabytes", "2", "--large-megabytes", "2", "--pool", "2"]
    completed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280)
    assert completed.returncode == 0, completed.stderr[-2000:]
    results = json.loads(completed.stdout)
    assert results["jobs"] > 100
    rows = {row[0]: row for row in pool_replacement_page.targets(results)}
    assert rows["failed jobs"][2:] == ["0", "yes"]
    (replacement,) = results["every_replacement"]
    assert 0 < replacement["seconds_to_first_answer"] <= replacement["seconds_to_only_new_answers"]


def test_the_page_of_benchmarks_takes_results_between_its_marks(
    run: tuple[dict[str, Any], str], tmp_path: Path
) -> None:
    page = tmp_path / "benchmarks.md"
    page.write_text((ROOT / "docs" / "benchmarks.md").read_text())
    report.write_into(page, run[0], "chart.svg")
    text = page.read_text()
    report.write_into(page, run[0], "chart.svg")
    assert page.read_text() == text
    assert "| Headrace |" in text
    assert text.startswith("# Benchmarks")
