"""Tests of `headrace dead`: list, show, replay, purge, export."""

from __future__ import annotations

import base64
import json
import re
import time

import pytest

from headrace.wire.attempts import decode_queued_message
from headrace.wire.dead_letter import decode_exported
from headrace.wire.keys import Keys
from tests.support.command import headrace
from tests.support.stock_worker import publish_stock_contract
from tests.support.stored_dead_letters import (
    ago_ms,
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
    """Return the URL of a Redis without a worker."""
    monkeypatch.setenv("HEADRACE_REDIS_URL", redis_url)
    publish_stock_contract(redis_url)
    return redis_url


# --- list and show ---------------------------------------------------------------------------------


def test_an_empty_list_is_reported_on_stderr(url):
    for arguments in (["list"], ["list", "--all"], ["list", "--json"], ["list", "--model", "churn"]):
        result = headrace("dead", *arguments)
        assert (result.returncode, result.stdout, result.stderr) == (0, "", "no dead letters\n")


def test_a_group_is_a_line_with_its_count_and_an_example(url, server):
    store_group(server, 10_000, died_ms=1767323045678)
    store_letter(server, make_letter("x", reason="crash", error="WorkerLostError"))
    server.set(Keys().dead_dropped, 1234)
    result = headrace("dead", "list")
    assert result.returncode == 0
    header, group, other = result.stdout.splitlines()
    assert header.split() == ["COUNT", "MODEL", "REASON", "ERROR", "OLDEST", "NEWEST", "EXAMPLE", "MESSAGE"]
    assert re.fullmatch(
        r"10,000  churn@3  permanent  ValueError +([\d,]+ d) +\1  group-9999  row # of group-# cannot be", group
    )
    assert other.split()[:4] == ["1", "churn@3", "crash", "WorkerLostError"]
    assert "10,001 dead letters\n1,234 dead letters dropped so far" in result.stderr


def test_the_list_as_json_has_the_same_groups(url, server):
    store_group(server, 3, died_ms=1767323045678)
    (group,) = map(json.loads, headrace("dead", "list", "--json").stdout.splitlines())
    assert (group["count"], group["oldest_ms"], group["newest_ms"]) == (3, 1767323045678, 1767323045680)
    letters = [json.loads(line) for line in headrace("dead", "list", "--all", "--json").stdout.splitlines()]
    assert [letter["id"] for letter in letters] == ["group-0", "group-1", "group-2"]
    assert letters[0]["died_ms"] == 1767323045678


def test_the_list_is_filtered(url, server):
    store_letter(server, make_letter("old", model="churn"), died_ms=ago_ms(7200))
    store_letter(
        server, make_letter("new", model="fraud", reason="bad input", error="InvalidInput"), died_ms=ago_ms(2)
    )
    for arguments, ids in (
        (["--model", "churn"], ["old"]),
        (["--reason", "bad input"], ["new"]),
        (["--error", "InvalidInput"], ["new"]),
        (["--older-than", "1h"], ["old"]),
        (["--newer-than", "90"], ["new"]),
        (["--older-than", "3d"], []),
    ):
        result = headrace("dead", "list", "--all", *arguments)
        assert [line.partition("\t")[0] for line in result.stdout.splitlines()] == ids
    assert result.stderr == "no dead letter matches\n"


def test_a_letter_is_printed_with_its_history_and_without_its_payload(url, server):
    attempts = (crashed_attempt(1767323045678), crashed_attempt(1767323045678, "error:TimeoutError"))
    dead = make_letter("a", attempts=attempts, metadata={"by": "billing"})
    store_letter(server, dead, make_message("a", SECRET), died_ms=1767323049999)
    result = headrace("dead", "show", "a")
    assert result.returncode == 0
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
        assert line in result.stdout.splitlines()
    as_json = headrace("dead", "show", "a", "--json").stdout
    assert json.loads(as_json)["payload_bytes"] == len(make_message("a", SECRET))
    listed = headrace("dead", "list").stdout + headrace("dead", "list", "--all").stdout
    for output in (result.stdout, as_json, listed):
        assert "secret" not in output
        assert base64.b64encode(b"secret").decode()[:6] not in output


def test_the_payload_is_printed_with_its_option(url, server):
    store_letter(server, make_letter("a"), make_message("a", SECRET))
    assert '  {"age":41,"plan":"a-secret-plan"}' in headrace("dead", "show", "a", "--payload").stdout
    as_json = json.loads(headrace("dead", "show", "a", "--payload", "--json").stdout)
    assert as_json["payload_instances"] == SECRET
    assert base64.b64decode(as_json["payload"]) == make_message("a", SECRET)


def test_the_first_bytes_of_a_malformed_message_are_printed_with_its_option(url, server):
    name = store_malformed(server, b"\x00\x1b[31m" + b"x" * 100_000)
    plain = headrace("dead", "show", name)
    assert "message    100,006 bytes" in plain.stdout
    assert "payload" not in plain.stdout
    result = headrace("dead", "show", name, "--payload").stdout
    assert "payload (100,006 bytes, the first 256)\n  b'\\x00\\x1b[31mxxx" in result
    assert len(result) < 2000


def test_no_stored_text_sends_control_characters_to_the_terminal(url, server):
    evil = "\x1b[2J\r\nfake\u202e"
    store_letter(
        server,
        make_letter(
            f"a{evil}", error=f"E{evil}", message=evil, worker=evil, traceback=evil, metadata={evil: evil}
        ),
    )
    for arguments in (["list"], ["list", "--all"], ["show", f"a{evil}", "--payload"]):
        result = headrace("dead", *arguments)
        assert result.returncode == 0
        assert not {"\x1b", "\r", "\u202e"} & set(result.stdout)
        assert "\nfake" not in result.stdout


def test_several_letters_are_printed_until_one_is_missing(url, server):
    store_letter(server, make_letter("a"))
    result = headrace("dead", "show", "a", "missing")
    assert result.returncode == 1
    assert result.stdout.startswith("letter     a\n")
    assert result.stderr == (
        "headrace: there is no dead letter missing; it may have been replayed, purged or dropped\n"
    )


# --- replay and purge ------------------------------------------------------------------------------


def test_letters_are_replayed_by_id(url, server):
    for name in ("a", "b"):
        store_letter(server, make_letter(name))
    result = headrace("dead", "replay", "a", "--json")
    assert (result.returncode, result.stderr) == (0, "1 dead letter replayed\n")
    assert json.loads(result.stdout) == {
        "done": 1,
        "already_handled": 0,
        "id_in_use": 0,
        "malformed": 0,
        "missing": [],
    }
    assert headrace("status", "a", "b").stdout == "a\twaiting\nb\tfailure\n"


def test_letters_are_replayed_by_a_filter(url, server):
    store_letter(server, make_letter("a", reason="crash"))
    store_letter(server, make_letter("b"))
    result = headrace("dead", "replay", "--reason", "crash", "--yes")
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "1 dead letter replayed\n")
    assert server.zrange(Keys().dead_times, 0, -1) == [b"b"]


def test_ids_are_read_from_standard_input(url, server):
    for name in ("a", "b", "c"):
        store_letter(server, make_letter(name))
    result = headrace("dead", "purge", "-", stdin="a\n\n  b\n")
    assert (result.returncode, result.stderr) == (0, "2 dead letters purged\n")
    assert headrace("dead", "purge", "-", stdin="").stderr == "no dead letter matches: nothing was purged\n"
    assert server.zrange(Keys().dead_times, 0, -1) == [b"c"]


def test_a_dry_run_prints_the_number_of_letters_and_changes_nothing(url, server):
    store_letter(server, make_letter("a"))
    for verb in ("replay", "purge"):
        result = headrace("dead", verb, "--all", "--dry-run")
        assert (result.returncode, result.stderr) == (0, f"1 dead letter would be {verb.rstrip('e')}ed\n")
    assert server.zcard(Keys().dead_times) == 1


def test_a_replay_to_another_version_and_at_a_rate(url, server):
    for number in range(6):
        store_letter(server, make_letter(f"n{number}"), make_message(f"n{number}", version="2"))
    refused = headrace("dead", "replay", "--all", "--yes", "--version", "9")
    assert (refused.returncode, refused.stderr) == (1, "headrace: model 'churn' has no version '9'; it has 3\n")
    started = time.monotonic()
    assert headrace("dead", "replay", "--all", "--yes", "--version", "3", "--rate", "10").returncode == 0
    assert time.monotonic() - started > 0.4
    body = json.loads(decode_queued_message(server.lindex("headrace:retried:predict.churn", 0))[1])["body"]
    assert json.loads(base64.b64decode(body))[1] == {"version": "3"}


def test_a_filter_without_a_match_is_reported(url, server):
    store_letter(server, make_letter("a"))
    for verb, participle in (("replay", "replayed"), ("purge", "purged")):
        for confirmation in ([], ["--yes"]):
            result = headrace("dead", verb, "--model", "missing", *confirmation)
            assert (result.returncode, result.stderr) == (0, f"no dead letter matches: nothing was {participle}\n")


def test_a_missing_id_is_an_error(url, server):
    store_letter(server, make_letter("a"))
    for verb, participle in (("replay", "replayed"), ("purge", "purged")):
        result = headrace("dead", verb, "missing")
        assert result.returncode == 1
        assert result.stderr == f"0 dead letters {participle}\nthere is no dead letter missing\n"


def test_letters_that_cannot_be_replayed_exit_3_beside_others_and_1_alone(url, server):
    name = store_malformed(server, b"garbage")
    store_letter(server, make_letter("a"))
    result = headrace("dead", "replay", "--all", "--yes")
    assert result.returncode == 3
    assert result.stderr.splitlines()[0] == "1 dead letter replayed"
    assert "their bytes are not a job" in result.stderr
    assert headrace("dead", "replay", name).returncode == 1
    store_letter(server, make_letter("b"), with_outcome=False)
    headrace("submit", "churn", '{"age": 1, "plan": "x"}', "--id", "b")
    conflict = headrace("dead", "replay", "b")
    assert conflict.returncode == 1
    assert "another job under way" in conflict.stderr


@pytest.mark.parametrize("verb", ["replay", "purge"])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "say which letters"),
        (["--all", "--model", "churn"], "not both"),
        (["--all", "a"], "not both"),
        (["--model", "churn"], "1 dead letter would be"),
        (["--all"], "pass --yes"),
        (["--older-than", "soon"], "such as 90s, 15m, 2h or 7d"),
        (["--reason", "bad luck"], "'bad luck' is not one of"),
    ],
    ids=str,
)
def test_an_unclear_choice_of_letters_is_refused(url, server, verb, arguments, message):
    store_letter(server, make_letter("a"))
    result = headrace("dead", verb, *arguments)
    assert result.returncode == 2
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert server.zcard(Keys().dead_times) == 1


def test_a_person_sees_the_matching_groups_and_confirms(url, server):
    for number in range(3):
        store_letter(server, make_letter(f"n{number}"))
    terminal = Terminal("dead", "purge", "--model", "churn", "--url", url)
    screen = terminal.read(until="Continue?")
    assert "NEWEST" in screen
    assert "3 dead letters will be purged" in screen
    store_letter(server, make_letter("later"), died_ms=ago_ms(0))
    terminal.type(b"y\n")
    assert "3 dead letters purged" in terminal.read()
    assert terminal.process.wait(20) == 0
    assert server.zrange(Keys().dead_times, 0, -1) == [b"later"]


def test_a_refused_confirmation_changes_nothing(url, server):
    store_letter(server, make_letter("a"))
    terminal = Terminal("dead", "replay", "--all", "--url", url)
    terminal.read(until="Continue?")
    terminal.type(b"n\n")
    assert "nothing was replayed" in terminal.read()
    assert terminal.process.wait(20) == 1
    assert server.zcard(Keys().dead_times) == 1


def test_a_slow_replay_shows_its_progress_and_can_be_stopped(url, server):
    for number in range(100):
        store_letter(server, make_letter(f"n{number}"))
    terminal = Terminal("dead", "replay", "--all", "--yes", "--rate", "5", "--url", url)
    terminal.read(until="3 dead letters replayed")
    terminal.type(b"\x03")
    assert "stopped: " in terminal.read(until="interrupted")
    assert terminal.process.wait(20) == 130
    remaining = server.zcard(Keys().dead_times)
    assert 0 < remaining < 100
    assert server.llen("headrace:retried:predict.churn") == 100 - remaining


# --- export ----------------------------------------------------------------------------------------


def test_an_export_contains_letters_and_messages(url, server, tmp_path):
    store_letter(server, make_letter("a"), make_message("a", SECRET))
    name = store_malformed(server, b"\x00\xffgarbage")
    out = tmp_path / "dead.jsonl"
    result = headrace("dead", "export", "-o", str(out))
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "2 dead letters exported\n")
    first, second = (decode_exported(line) for line in out.read_text().splitlines())
    assert first.payload == make_message("a", SECRET)
    assert (second.id, second.payload) == (name, b"\x00\xffgarbage")
    assert headrace("dead", "export").stdout == out.read_text()
    assert headrace("dead", "export", "a").stdout == out.read_text().splitlines()[0] + "\n"
    assert headrace("dead", "export", "--reason", "malformed").stdout == out.read_text().splitlines()[1] + "\n"


def test_an_export_does_not_overwrite_a_file_and_reports_missing_ids(url, server, tmp_path):
    out = tmp_path / "dead.jsonl"
    out.write_text("existing")
    assert headrace("dead", "export", "-o", str(out)).returncode == 1
    assert out.read_text() == "existing"
    store_letter(server, make_letter("a"))
    missing = headrace("dead", "export", "a", "missing", "-o", str(out), "--force")
    assert missing.returncode == 1
    assert missing.stderr == "1 dead letter exported\nthere is no dead letter missing\n"
    assert len(out.read_text().splitlines()) == 1


def test_an_export_has_the_format_of_the_reference_page(url, server):
    store_letter(server, make_letter("a"), make_message("a", SECRET))
    line = json.loads(headrace("dead", "export").stdout)
    message = json.loads(base64.b64decode(line["payload"]))
    (model, instances), _, _ = json.loads(base64.b64decode(message["body"]))
    assert (model, instances) == ("churn", SECRET)


def test_an_unreachable_redis_is_one_line(url):
    result = headrace("dead", "list", "--url", "redis://127.0.0.1:1/0")
    assert result.returncode == 1
    assert len(result.stderr.splitlines()) == 1


def test_a_missing_permission_is_named(url, server):
    server.execute_command("ACL", "SETUSER", "weak", "on", ">pw", "~x", "+@all")
    try:
        result = headrace("dead", "list", "--url", url.replace("redis://", "redis://weak:pw@"))
    finally:
        server.execute_command("ACL", "DELUSER", "weak")
    assert result.returncode == 1
    assert "does not permit this user" in result.stderr
