"""Dead letters from the command line: list, show, replay, purge, export."""

from __future__ import annotations

import base64
import json
import time

import pytest

from headrace.wire.attempts import decode_queued_message
from headrace.wire.dead_letter import decode_exported
from headrace.wire.keys import Keys
from tests.support.command import headrace
from tests.support.stock_worker import publish_stock_contract
from tests.support.stored_dead_letters import (
    crashed_attempt,
    make_letter,
    make_message,
    store_group,
    store_letter,
    store_malformed,
)
from tests.support.terminal import Terminal

SECRET = [{"age": 41, "plan": "a-secret-plan"}]


@pytest.fixture
def url(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A Redis that nobody takes jobs from."""
    monkeypatch.setenv("HEADRACE_REDIS_URL", redis_url)
    publish_stock_contract(redis_url)
    return redis_url


def ago(seconds: float) -> int:
    return int((time.time() - seconds) * 1000)


# --- list and show ---------------------------------------------------------------------------------


def test_no_letters_are_told_on_stderr(url):
    for arguments in (["list"], ["list", "--all"], ["list", "--json"], ["list", "--model", "churn"]):
        shown = headrace("dead", *arguments)
        assert (shown.returncode, shown.stdout, shown.stderr) == (0, "", "no dead letters\n")


def test_a_storm_is_a_line_with_its_count_and_an_example(url, server):
    store_group(server, 10_000, died_ms=1767323045678)
    store_letter(server, make_letter("x", reason="crash", error="WorkerLostError"))
    server.set(Keys().dead_dropped, 1234)
    shown = headrace("dead", "list")
    assert shown.returncode == 0
    head, storm, other = shown.stdout.splitlines()
    assert head.split() == ["COUNT", "MODEL", "REASON", "ERROR", "OLDEST", "NEWEST", "EXAMPLE", "MESSAGE"]
    cells = storm.split(maxsplit=7)
    assert cells[:6] == [
        "10,000",
        "churn@3",
        "permanent",
        "ValueError",
        "2026-01-02T03:04:05Z",
        "2026-01-02T03:04:15Z",
    ]
    assert cells[6:] == ["storm-9999", "row # of storm-# cannot be"]
    assert other.split()[:4] == ["1", "churn@3", "crash", "WorkerLostError"]
    assert "10,001 dead letters\n1,234 dead letters dropped so far" in shown.stderr


def test_the_list_as_json_says_the_same(url, server):
    store_group(server, 3, died_ms=1767323045678)
    (storm,) = map(json.loads, headrace("dead", "list", "--json").stdout.splitlines())
    assert (storm["count"], storm["oldest_ms"], storm["newest_ms"]) == (3, 1767323045678, 1767323045680)
    each = [json.loads(line) for line in headrace("dead", "list", "--all", "--json").stdout.splitlines()]
    assert [one["id"] for one in each] == ["storm-0", "storm-1", "storm-2"]
    assert each[0]["died_ms"] == 1767323045678


def test_the_list_is_filtered(url, server):
    store_letter(server, make_letter("old", model="churn"), died_ms=ago(7200))
    store_letter(
        server, make_letter("new", model="fraud", reason="bad input", error="InvalidInput"), died_ms=ago(2)
    )
    for arguments, found in (
        (["--model", "churn"], ["old"]),
        (["--reason", "bad input"], ["new"]),
        (["--error", "InvalidInput"], ["new"]),
        (["--older-than", "1h"], ["old"]),
        (["--newer-than", "90"], ["new"]),
        (["--older-than", "3d"], []),
    ):
        shown = headrace("dead", "list", "--all", *arguments)
        assert [line.partition("\t")[0] for line in shown.stdout.splitlines()] == found
    assert shown.stderr == "no dead letter matches\n"


def test_a_letter_is_shown_with_its_history_and_without_its_payload(url, server):
    attempts = (crashed_attempt(1767323045678), crashed_attempt(1767323045678, "error:TimeoutError"))
    dead = make_letter("a", attempts=attempts, metadata={"by": "billing"})
    store_letter(server, dead, make_message("a", SECRET), died_ms=1767323049999)
    shown = headrace("dead", "show", "a")
    assert shown.returncode == 0
    for line in (
        "letter     a",
        "died       2026-01-02T03:04:09Z on host-1",
        "job        churn@3, 1 instance, from predict.churn",
        "reason     permanent",
        "error      builtins.ValueError: the model cannot",
        "metadata   by=billing",
        "attempt    2026-01-02T03:04:05Z crash on host-1, alone",
        "attempt    2026-01-02T03:04:05Z error:TimeoutError on host-1, alone",
        "traceback",
    ):
        assert line in shown.stdout.splitlines()
    as_json = headrace("dead", "show", "a", "--json").stdout
    assert json.loads(as_json)["payload_bytes"] == len(make_message("a", SECRET))
    for said in (shown.stdout, as_json, headrace("dead", "list").stdout, headrace("dead", "list", "--all").stdout):
        assert "secret" not in said
        assert base64.b64encode(b"secret").decode()[:6] not in said


def test_the_payload_is_shown_when_asked_for(url, server):
    store_letter(server, make_letter("a"), make_message("a", SECRET))
    assert '  {"age":41,"plan":"a-secret-plan"}' in headrace("dead", "show", "a", "--payload").stdout
    as_json = json.loads(headrace("dead", "show", "a", "--payload", "--json").stdout)
    assert as_json["instances"] == SECRET
    assert base64.b64decode(as_json["payload"]) == make_message("a", SECRET)


def test_of_bytes_that_are_no_job_a_head_is_shown_when_asked_for(url, server):
    name = store_malformed(server, b"\x00\x1b[31m" + b"x" * 100_000)
    plain = headrace("dead", "show", name)
    assert "message    100,006 bytes" in plain.stdout
    assert "payload" not in plain.stdout
    shown = headrace("dead", "show", name, "--payload").stdout
    assert "payload (100,006 bytes, the first 256)\n  b'\\x00\\x1b[31mxxx" in shown
    assert len(shown) < 2000


def test_what_others_wrote_cannot_write_to_the_terminal(url, server):
    evil = "\x1b[2J\r\nfake\u202e"
    store_letter(
        server,
        make_letter(
            f"a{evil}", error=f"E{evil}", message=evil, worker=evil, traceback=evil, metadata={evil: evil}
        ),
    )
    for arguments in (["list"], ["list", "--all"], ["show", f"a{evil}", "--payload"]):
        shown = headrace("dead", *arguments)
        assert shown.returncode == 0
        assert not {"\x1b", "\r", "\u202e"} & set(shown.stdout)
        assert "\nfake" not in shown.stdout


def test_several_letters_are_shown_until_one_is_not_there(url, server):
    store_letter(server, make_letter("a"))
    shown = headrace("dead", "show", "a", "nobody")
    assert shown.returncode == 1
    assert shown.stdout.startswith("letter     a\n")
    assert shown.stderr == (
        "headrace: there is no dead letter nobody; it may have been replayed, purged or dropped\n"
    )


# --- replay and purge ------------------------------------------------------------------------------


def test_letters_are_replayed_by_id(url, server):
    for name in ("a", "b"):
        store_letter(server, make_letter(name))
    done = headrace("dead", "replay", "a", "--json")
    assert (done.returncode, done.stderr) == (0, "1 dead letter replayed\n")
    assert json.loads(done.stdout) == {"done": 1, "gone": 0, "taken": 0, "no_job": 0, "missing": []}
    assert headrace("status", "a", "b").stdout == "a\tqueued\nb\tfailure\n"


def test_letters_are_replayed_by_what_they_have_in_common(url, server):
    store_letter(server, make_letter("a", reason="crash"))
    store_letter(server, make_letter("b"))
    done = headrace("dead", "replay", "--reason", "crash", "--yes")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "1 dead letter replayed\n")
    assert server.zrange(Keys().dead_times, 0, -1) == [b"b"]


def test_ids_are_read_from_standard_input(url, server):
    for name in ("a", "b", "c"):
        store_letter(server, make_letter(name))
    done = headrace("dead", "purge", "-", stdin="a\n\n  b\n")
    assert (done.returncode, done.stderr) == (0, "2 dead letters purged\n")
    assert headrace("dead", "purge", "-", stdin="").stderr == "no dead letter matches: nothing was purged\n"
    assert server.zrange(Keys().dead_times, 0, -1) == [b"c"]


def test_a_dry_run_says_what_would_be_done_and_does_nothing(url, server):
    store_letter(server, make_letter("a"))
    for verb in ("replay", "purge"):
        done = headrace("dead", verb, "--all", "--dry-run")
        assert (done.returncode, done.stderr) == (0, f"1 dead letter would be {verb.rstrip('e')}ed\n")
    assert server.zcard(Keys().dead_times) == 1


def test_a_replay_to_another_version_and_at_a_rate(url, server):
    for number in range(6):
        store_letter(server, make_letter(f"n{number}"), make_message(f"n{number}", version="2"))
    refused = headrace("dead", "replay", "--all", "--yes", "--version", "9")
    assert (refused.returncode, refused.stderr) == (1, "headrace: model 'churn' has no version '9'; it has 3\n")
    began = time.monotonic()
    assert headrace("dead", "replay", "--all", "--yes", "--version", "3", "--rate", "10").returncode == 0
    assert time.monotonic() - began > 0.4
    body = json.loads(decode_queued_message(server.lindex("predict.churn", 0))[1])["body"]
    assert json.loads(base64.b64decode(body))[1] == {"version": "3"}


def test_nothing_to_replay_or_purge_is_said_so(url, server):
    store_letter(server, make_letter("a"))
    for verb, done in (("replay", "replayed"), ("purge", "purged")):
        for more in ([], ["--yes"]):
            shown = headrace("dead", verb, "--model", "nobody", *more)
            assert (shown.returncode, shown.stderr) == (0, f"no dead letter matches: nothing was {done}\n")


def test_an_id_that_is_not_there_is_an_error(url, server):
    store_letter(server, make_letter("a"))
    for verb, done in (("replay", "replayed"), ("purge", "purged")):
        shown = headrace("dead", verb, "nobody")
        assert shown.returncode == 1
        assert shown.stderr == f"0 dead letters {done}\nthere is no dead letter nobody\n"


def test_letters_that_cannot_be_replayed_exit_3_beside_others_and_1_alone(url, server):
    name = store_malformed(server, b"garbage")
    store_letter(server, make_letter("a"))
    some = headrace("dead", "replay", "--all", "--yes")
    assert some.returncode == 3
    assert some.stderr.splitlines()[0] == "1 dead letter replayed"
    assert "their bytes are no job" in some.stderr
    assert headrace("dead", "replay", name).returncode == 1
    store_letter(server, make_letter("b"), ended=False)
    headrace("submit", "churn", '{"age": 1, "plan": "x"}', "--id", "b")
    taken = headrace("dead", "replay", "b")
    assert taken.returncode == 1
    assert "another job under way" in taken.stderr


@pytest.mark.parametrize("verb", ["replay", "purge"])
@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "say which letters"),
        (["--all", "--model", "churn"], "and not both"),
        (["--all", "a"], "and not both"),
        (["--model", "churn"], "1 dead letter would be"),
        (["--all"], "say --yes"),
        (["--older-than", "soon"], "such as 90s, 15m, 2h or 7d"),
        (["--reason", "bad luck"], "'bad luck' is not one of"),
    ],
    ids=str,
)
def test_many_letters_are_never_meant_by_mistake(url, server, verb, arguments, says):
    store_letter(server, make_letter("a"))
    shown = headrace("dead", verb, *arguments)
    assert shown.returncode == 2
    assert says in shown.stderr
    assert len(shown.stderr.splitlines()) == 1
    assert server.zcard(Keys().dead_times) == 1


def test_a_person_is_shown_what_is_meant_and_asked(url, server):
    for number in range(3):
        store_letter(server, make_letter(f"n{number}"))
    asked = Terminal("dead", "purge", "--model", "churn", "--url", url)
    shown = asked.read(until="Go on?")
    assert "NEWEST" in shown
    assert "3 dead letters to be purged" in shown
    store_letter(server, make_letter("later"), died_ms=ago(0))
    asked.type(b"y\n")
    assert "3 dead letters purged" in asked.read()
    assert asked.process.wait(20) == 0
    assert server.zrange(Keys().dead_times, 0, -1) == [b"later"]


def test_who_says_no_has_nothing_done(url, server):
    store_letter(server, make_letter("a"))
    asked = Terminal("dead", "replay", "--all", "--url", url)
    asked.read(until="Go on?")
    asked.type(b"n\n")
    assert "nothing was replayed" in asked.read()
    assert asked.process.wait(20) == 1
    assert server.zcard(Keys().dead_times) == 1


def test_a_slow_replay_shows_how_far_it_is_and_can_be_stopped(url, server):
    for number in range(100):
        store_letter(server, make_letter(f"n{number}"))
    slow = Terminal("dead", "replay", "--all", "--yes", "--rate", "5", "--url", url)
    slow.read(until="3 dead letters replayed")
    slow.type(b"\x03")
    assert "stopped: " in slow.read(until="interrupted")
    assert slow.process.wait(20) == 130
    left = server.zcard(Keys().dead_times)
    assert 0 < left < 100
    assert server.llen("predict.churn") == 100 - left


# --- export ----------------------------------------------------------------------------------------


def test_an_export_holds_everything(url, server, tmp_path):
    store_letter(server, make_letter("a"), make_message("a", SECRET))
    name = store_malformed(server, b"\x00\xffgarbage")
    out = tmp_path / "dead.jsonl"
    done = headrace("dead", "export", "-o", str(out))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "2 dead letters exported\n")
    first, second = (decode_exported(line) for line in out.read_text().splitlines())
    assert first.payload == make_message("a", SECRET)
    assert (second.id, second.payload) == (name, b"\x00\xffgarbage")
    assert headrace("dead", "export").stdout == out.read_text()
    assert headrace("dead", "export", "a").stdout == out.read_text().splitlines()[0] + "\n"
    assert headrace("dead", "export", "--reason", "malformed").stdout == out.read_text().splitlines()[1] + "\n"


def test_an_export_does_not_overwrite_and_says_what_is_missing(url, server, tmp_path):
    out = tmp_path / "dead.jsonl"
    out.write_text("mine")
    assert headrace("dead", "export", "-o", str(out)).returncode == 1
    assert out.read_text() == "mine"
    store_letter(server, make_letter("a"))
    missing = headrace("dead", "export", "a", "nobody", "-o", str(out), "--force")
    assert missing.returncode == 1
    assert missing.stderr == "1 dead letter exported\nthere is no dead letter nobody\n"
    assert len(out.read_text().splitlines()) == 1


def test_what_is_exported_can_be_read_as_the_page_says(url, server):
    store_letter(server, make_letter("a"), make_message("a", SECRET))
    line = json.loads(headrace("dead", "export").stdout)
    wire = json.loads(base64.b64decode(line["payload"]))
    (model, instances), _, _ = json.loads(base64.b64decode(wire["body"]))
    assert (model, instances) == ("churn", SECRET)


def test_a_redis_that_is_away_is_one_line(url):
    shown = headrace("dead", "list", "--url", "redis://127.0.0.1:1/0")
    assert shown.returncode == 1
    assert len(shown.stderr.splitlines()) == 1


def test_a_user_without_the_right_is_told_so(url, server):
    server.execute_command("ACL", "SETUSER", "weak", "on", ">pw", "~x", "+@all")
    try:
        shown = headrace("dead", "list", "--url", url.replace("redis://", "redis://weak:pw@"))
    finally:
        server.execute_command("ACL", "DELUSER", "weak")
    assert shown.returncode == 1
    assert "does not permit this user" in shown.stderr
