"""What others wrote into Redis never controls a terminal, in any command.

Escapes are planted in everything that is stored. Each command of `headrace` runs on a terminal, with and without
`--json`, and what it prints is searched for characters that a terminal obeys, apart from our own.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import msgspec
import pytest
import redis

from headrace.catalog.aliases import Alias
from headrace.catalog.contract import Array, Contract, Output
from headrace.catalog.published import publish_contract
from headrace.catalog.workers import LoadError, WorkerStatus
from headrace.cli import main
from headrace.terminal import _CONTROLS, escape_controls, escape_json
from headrace.wire.bulk import Run
from headrace.wire.execution import Execution
from headrace.wire.keys import Keys
from headrace.wire.message import Job, encode_message
from headrace.wire.outcome import Failure, Prediction, Success, encode_outcome
from headrace.wire.record import DIGEST_BYTES, Record
from headrace_worker.local.embedded_redis import EmbeddedRedis
from tests.support.command import headrace
from tests.support.stored_dead_letters import make_letter, store_letter
from tests.support.terminal import Terminal

KEYS = Keys()
#: Sets a window's title, clears the screen, blinks, a control of one byte, backspaces, text from right to left.
EVIL = "owned\x1b]0;title\x07\x1b[2J\x1b[5m\x9b31m\x08\x08\r\x7f\u202e\u2066\u2028"
#: The controls of our own: styles without blinking, the status line, the full screen of `top`.
OURS = re.compile(
    r"\x1b\[(?!5m)[\d;]{1,5}m|\x1b\[K|\x1b\[H|\x1b\[J|\x1b\[\?25[hl]|\x1b\[\?1049[hl]|\r(?=\x1b|\r|\n|[\[ \d])"
)
MODEL, JOB, FAILED, RUN = "churn", "one", "two", "nightly"

#: The arguments of each command. Where one is None, the command is run in a test of its own, or not at all.
COMMANDS: dict[str, list[str] | None] = {
    "batch": [MODEL, "rows.jsonl", "-o", "-", "--timeout", "1"],
    "bulk cancel": [RUN],
    "bulk failures": [RUN],
    "bulk list": [],
    "bulk resume": [RUN],
    "bulk status": [RUN],
    "bulk submit": [MODEL, "in:a.parquet", "-o", "out:b", "--name", "other"],
    "bulk wait": [RUN, "--timeout", "1"],
    "cancel": [JOB, FAILED, EVIL],
    "completion": ["bash"],
    "dead export": [],
    "dead list": [],
    "dead purge": [EVIL, "missing"],
    "dead replay": [EVIL, "a"],
    "dead show": [EVIL, "a"],
    "demo": None,  # has a Redis of its own
    "dev": None,  # as demo
    "doctor": [],
    "explain": [JOB, FAILED, "waiting", EVIL],
    "exporter": ["--port", "0"],
    "flower": None,
    "gateway": None,  # a server, as `flower`
    "health": ["--file", "health"],
    "help": ["submit"],
    "keys add": [EVIL],
    "keys change": [EVIL, "--models", EVIL],
    "keys list": [],
    "keys revoke": [EVIL],
    "keys rotate": [EVIL],
    "models add": ["model.skops", "--name", MODEL, "--example", "example.json"],
    "models aliases": [MODEL],
    "models compare": [MODEL],
    "models diff": [f"{MODEL}@1", f"{MODEL}@2"],
    "models drift": [MODEL],
    "models gc": ["--keep", "1"],
    "models history": [MODEL],
    "models keys new": ["key"],
    "models list": [],
    "models publish": [],
    "models promote": [f"{MODEL}@1", "--timeout", "1"],
    "models rollback": [MODEL],
    "models show": [MODEL],
    "models sign": [f"{MODEL}@1"],
    "models verify": [],
    "notify": None,  # runs until it is stopped
    "notify secret": [],
    "plan": ["--measure", "0.1s"],
    "queues": [],
    "queues pause": [MODEL, "--reason", EVIL],
    "queues purge": [MODEL, "--yes"],
    "queues resume": [MODEL],
    "redis install": [],
    "result": [JOB, FAILED, "--timeout", "1"],
    "status": [JOB, FAILED, EVIL],
    "submit": [MODEL, "[1, 2, 3]"],
    "top": ["--once", "--every", "0.5"],
    "worker": None,
}
#: Commands that show a planted text.
SHOWING = {
    "bulk failures", "bulk status", "dead export", "dead list", "dead show", "doctor", "explain", "models aliases",
    "models history", "queues", "result", "top",
}  # fmt: skip


def each_command(command: click.Command = main, *path: str) -> Iterator[tuple[str, click.Command]]:
    """Yield each command with its words; a group only if it does something without a subcommand."""
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            subcommand = command.get_command(context, name)
            assert subcommand is not None
            yield from each_command(subcommand, *path, name)
        if command.invoke_without_command:
            yield " ".join(path), command
    else:
        yield " ".join(path), command


BY_NAME = dict(each_command())


def test_every_command_has_arguments() -> None:
    assert set(BY_NAME) == set(COMMANDS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model in a store, and the files that commands read."""
    import skops.io
    from sklearn.linear_model import LogisticRegression

    from headrace_worker.packaging.package import package
    from headrace_worker.store.store import Store

    folder = tmp_path_factory.mktemp("store")
    rows = [[float(row % 2), float(row % 3), 1.0] for row in range(12)]
    skops.io.dump(LogisticRegression().fit(rows, [row % 2 for row in range(12)]), folder / "model.skops")
    (folder / "example.json").write_text(json.dumps(rows))
    (folder / "rows.jsonl").write_text("[1, 2, 3]\n[4, 5, 6]\n")
    for _ in range(2):
        package(Store(folder / "models"), folder / "model.skops", name=MODEL, example=folder / "example.json")
    return folder


@pytest.fixture
def evil(server: redis.Redis, redis_url: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> redis.Redis:
    """Return the Redis with escapes in everything that is stored."""
    monkeypatch.setenv("HEADRACE_REDIS_URL", redis_url)
    monkeypatch.setenv("HEADRACE_MODELS", "models")
    monkeypatch.chdir(folder)
    plant(server)
    return server


def plant(server: redis.Redis) -> None:
    now, now_ms = datetime.now(UTC), int(time.time() * 1000)
    contract = Contract(model=MODEL, version="1", input=Array(shape=(3,)), methods={"predict": Output(shape=())})
    publish_contract(server, KEYS, contract)
    server.sadd(KEYS.models, EVIL)
    server.hset(KEYS.contracts(MODEL), EVIL, msgspec.json.encode(contract))
    alias = msgspec.json.encode(Alias(version=EVIL))
    server.hset(KEYS.aliases(MODEL), mapping={EVIL: alias, "canary": alias, "shadow": alias})
    for name in ("production", EVIL):
        change = {"alias": name, "version": EVIL, "former": EVIL, "by": EVIL, "reason": EVIL, "at_ms": now_ms}
        server.lpush(KEYS.alias_history(MODEL), json.dumps(change))
    status = WorkerStatus(versions=(EVIL, "1"), runtimes={EVIL: EVIL}, at_ms=now_ms)
    server.hset(KEYS.loaded(MODEL), EVIL, msgspec.json.encode(status))
    for version in (EVIL, "1", "2"):
        refusal = LoadError(worker=EVIL, reason=EVIL, at_ms=now_ms)
        server.hset(KEYS.refused(MODEL), version, msgspec.json.encode(refusal))
    server.hset(
        KEYS.paused, mapping={MODEL: json.dumps({"by": EVIL, "at_ms": now_ms, "reason": EVIL}), EVIL: "{}"}
    )
    plant_jobs(server, now, now_ms)
    plant_run(server, now_ms)
    server.hset(KEYS.version_stats(MODEL, EVIL), mapping={EVIL: EVIL, "succeeded": 1})
    for queue in ("predict.churn ", f"predict.{MODEL}{EVIL}", f"{MODEL}{EVIL}"):
        server.lpush(queue, encode_message(Job(id="unread", model=MODEL, instances=[[1]])))


def plant_jobs(server: redis.Redis, now: datetime, now_ms: int) -> None:
    record = Record(model=EVIL, submitted_ms=now_ms, metadata={EVIL: EVIL})
    stored = b"0" * DIGEST_BYTES + msgspec.json.encode(record)
    server.mset({KEYS.job(job): stored for job in (JOB, FAILED, EVIL)})
    waiting = msgspec.structs.replace(record, model=MODEL)
    server.set(KEYS.job("waiting"), b"0" * DIGEST_BYTES + msgspec.json.encode(waiting))
    message = encode_message(Job(id="waiting", model=MODEL, instances=[[1, 2, 3]], metadata={EVIL: EVIL}))
    server.lpush(KEYS.isolated(f"predict.{MODEL}"), message)
    execution = Execution(lease=EVIL, claimed_ms=now_ms, claim_size=1, version=EVIL, runtime=EVIL).encode()
    prediction = Prediction(model=EVIL, version=EVIL, predictions=[EVIL])
    failure = Failure(
        job=FAILED, reason="permanent", error=EVIL, module=EVIL, message=EVIL, traceback=f"{EVIL}\n{EVIL}"
    )
    for outcome in (Success(job=JOB, prediction=prediction), failure):
        raw = encode_outcome(outcome, now, execution=msgspec.Raw(execution), worker=EVIL)
        server.set(KEYS.result(outcome.job), raw)
    fields = dict.fromkeys(("model", "version", "error", "module", "message", "worker"), EVIL)
    for name in ("a", EVIL):
        letter = make_letter(name, queue=f"predict.{MODEL}", traceback=f"{EVIL}\n{EVIL}", **fields)
        letter = msgspec.structs.replace(letter, metadata={EVIL: EVIL})
        store_letter(server, letter, encode_message(Job(id="a", model=MODEL, instances=[{EVIL: EVIL}])))
    server.zadd(KEYS.leases, {f"{EVIL}/1/x#1,2#predict.{MODEL}": now_ms - 5000})
    server.rpush(KEYS.lease(f"{EVIL}/1/x"), message)


def plant_run(server: redis.Redis, now_ms: int) -> None:
    run = Run(name=RUN, model=MODEL, input=f"in:{EVIL}", output=f"out:{EVIL}", key=EVIL, keep=(EVIL,))
    numbers = {"submitted_ms": now_ms, "ended_ms": now_ms, "round": 1, "chunks": 1, "chunks_failed": 1}
    fields = {"run": msgspec.json.encode(run), "state": "failure", "error": EVIL, f"reason:{EVIL}": 1, **numbers}
    server.hset(KEYS.run(RUN), mapping=fields)
    server.zadd(KEYS.runs, {RUN: now_ms})
    failure = {"job": EVIL, "reason": EVIL, "message": EVIL}
    server.hset(KEYS.receipts(RUN), "!0", json.dumps(failure))


def find_controls(output: str) -> list[str]:
    """Return the characters that a terminal obeys, apart from our own, each with its surroundings."""
    text = OURS.sub("", output.replace("\r\n", "\n"))
    return [text[max(0, match.start() - 60) : match.end() + 20] for match in _CONTROLS.finditer(text)]


def forms() -> list[tuple[str, tuple[str, ...]]]:
    """Return each command, and its option for JSON where it has one."""
    return [
        (name, options)
        for name, command in BY_NAME.items()
        if COMMANDS.get(name) is not None
        for options in [(), *([("--json",)] if any("--json" in param.opts for param in command.params) else [])]
    ]


@pytest.mark.parametrize(("name", "options"), forms(), ids=str)
def test_no_command_prints_what_a_terminal_obeys(name: str, options: tuple[str, ...], evil: redis.Redis) -> None:
    arguments = COMMANDS[name]
    assert arguments is not None
    with Terminal(*name.split(), *options, *arguments) as terminal:
        # An exporter runs until it is stopped.
        output = terminal.read("metrics on" if name == "exporter" else None, seconds=60)
    assert find_controls(output) == []
    if name in SHOWING:
        assert "owned" in output, output


@pytest.mark.parametrize("name", sorted(SHOWING - {"top", "dead export", "result"}))
def test_lines_for_people_and_json_are_escaped_in_a_pipe_too(name: str, evil: redis.Redis) -> None:
    has_json = any("--json" in param.opts for param in BY_NAME[name].params)
    for options in ((), ("--json",)) if has_json else ((),):
        completed = headrace(*name.split(), *options, *(COMMANDS[name] or ()))
        assert find_controls(completed.stdout + completed.stderr) == []
        if options:
            assert "owned" in json.dumps([json.loads(line) for line in completed.stdout.splitlines()])


def test_a_pipe_gets_the_text_of_a_prediction_as_it_is(evil: redis.Redis) -> None:
    command = [sys.executable, "-m", "headrace.cli", "result", JOB]
    assert subprocess.run(command, capture_output=True, timeout=60).stdout == f"{EVIL}\n".encode()


def test_the_full_screen_of_top_shows_events_escaped(evil: redis.Redis) -> None:
    common = {"hostname": EVIL, "clock": 1, "utcoffset": 0, "pid": 1}
    heartbeat = {"type": "worker-heartbeat", "freq": 2.0, "active": 1, **common}
    failed = {"type": "task-failed", "uuid": "x", "exception": EVIL, "model": EVIL, "error": EVIL, **common}
    with Terminal("top", "--every", "0.3") as terminal:
        terminal.read("headrace top")
        deadline = time.monotonic() + 10
        while "owned" not in terminal.output.partition("WORKER")[2] and time.monotonic() < deadline:
            for kind, body in (("worker.heartbeat", heartbeat), ("task.failed", failed)):
                evil.publish(f"/0.celeryev/{kind}", _envelope({"timestamp": time.time(), **body}))
            with suppress(AssertionError):
                terminal.read("never", seconds=0.3)
        output = terminal.output
    assert "owned" in output
    assert find_controls(output) == []


def _envelope(body: dict[str, Any]) -> str:
    return json.dumps(
        {
            "body": json.dumps(body),
            "content-type": "application/json",
            "content-encoding": "utf-8",
            "headers": {},
            "properties": {"body_encoding": "utf-8"},
        }
    )


def test_the_log_of_a_worker_on_a_terminal_is_escaped(evil: redis.Redis) -> None:
    """Its messages, the names of its errors and of other workers come from Redis."""
    evil.delete(KEYS.paused)
    evil.lpush(f"predict.{MODEL}", f'{{"broken": "{EVIL}"', f"\x01{EVIL}".encode())
    evil.lpush(
        f"predict.{MODEL}",
        encode_message(Job(id="three", model=MODEL, instances=[{EVIL: 1}], version=EVIL)),
        encode_message(Job(id="four", model=f"other{EVIL}", instances=[[1, 2, 3]])),
    )
    with Terminal("worker", "--concurrency", "1") as terminal:
        terminal.read("ready", seconds=60)
        deadline = time.monotonic() + 20
        while evil.llen(f"predict.{MODEL}") and time.monotonic() < deadline:
            with suppress(AssertionError):
                terminal.read("never", seconds=0.3)
        with suppress(AssertionError):
            terminal.read("never", seconds=1)
        output = terminal.output
    assert not evil.llen(f"predict.{MODEL}")
    assert find_controls(output) == []


def test_an_error_of_redis_and_its_traceback_are_escaped(monkeypatch: pytest.MonkeyPatch) -> None:
    with EmbeddedRedis("--appendfsync", "no") as server, redis.Redis.from_url(server.url) as admin:
        admin.hset("headrace:contracts:churn", mapping={"latest": EVIL, EVIL: f'{{"model": "{EVIL}"'})
        admin.sadd(KEYS.models, "churn", EVIL)
        monkeypatch.setenv("HEADRACE_REDIS_URL", server.url)
        monkeypatch.setenv("HEADRACE_DEBUG", "1")
        for arguments in (
            ("submit", f"churn{EVIL}", "[1]"),
            ("submit", "churn", "[1]"),
            ("status", EVIL),
            (EVIL,),
        ):
            with Terminal(*arguments) as terminal:
                assert find_controls(terminal.read()) == []


def test_escapes_keep_text_and_the_meaning_of_json() -> None:
    assert escape_controls("Zürich 東京 👩‍🔬\tx\n") == "Zürich 東京 👩‍🔬\tx\n"
    assert escape_controls("a\x1b\x9b\u202eb\ud800") == "a\\x1b\\x9b\\u202eb\\ud800"
    text = msgspec.json.encode({EVIL: EVIL}).decode()
    assert not _CONTROLS.search(escape_json(text))
    assert json.loads(escape_json(text)) == {EVIL: EVIL}
