"""Each row of the tables in docs/reference/celery-messages.md holds: heeded, refused or ignored."""

from __future__ import annotations

import base64
import json
import re
import zlib
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from celery import Celery
from kombu import Connection, Producer

from headrace.catalog.contract import Array, Contract, Output
from headrace.catalog.validation import check_instances
from headrace.errors import InvalidInput
from headrace.wire.parsing import MalformedMessage, ParsedMessage, parse
from tests.support import ROOT

PAGE = ROOT / "docs" / "reference" / "celery-messages.md"
CONTRACT = Contract(
    model="churn",
    version="1",
    input=Array(shape=(1,), kind="number", nullable=True),
    methods={"predict": Output(shape=())},
)
TIMES = ("2030-01-31T12:00:00+00:00", "2030-01-31T12:00:00")
CLIENT = "0123456789abcdef" * 2

Change = Callable[[dict[str, Any]], None]


def header(name: str, value: Any) -> Change:
    return lambda parts: parts["headers"].update({name: value})


def without_header(name: str) -> Change:
    return lambda parts: parts["headers"].pop(name)


def prop(name: str, value: Any) -> Change:
    return lambda parts: parts["properties"].update({name: value})


def field(name: str, value: Any) -> Change:
    return lambda parts: parts.update({name: value})


def body(text: str | bytes) -> Change:
    data = text.encode() if isinstance(text, str) else text
    return field("body", base64.b64encode(data).decode())


def both(*changes: Change) -> Change:
    def change(parts: dict[str, Any]) -> None:
        for each in changes:
            each(parts)

    return change


PROTOCOL_1 = json.dumps(
    {"task": "headrace.predict", "id": "b", "args": ["churn", [[2]]], "kwargs": {}, "retries": 0}
)
#: The signatures of a task and of a group, as Celery writes them.
SIGNATURE: dict[str, Any] = {
    "task": "a",
    "args": [],
    "kwargs": {},
    "options": {},
    "subtask_type": None,
    "immutable": False,
}
GROUP = {**SIGNATURE, "task": "celery.group", "subtask_type": "group"}
BODY = b'[["churn", [[1]]], {}, {}]'


def embed(signatures: dict[str, Any]) -> Change:
    return body(json.dumps([["churn", [[1]]], {}, signatures]))


#: By row: changes of a message. Each change of a row has the effect that the row states.
ROWS: dict[str, list[Change]] = {
    # the body
    "protocol 2: `[args, kwargs, embed]`": [
        body('[["churn", [[2]]], null, {}]'),
        body('[["churn", [[2]]], {}, {}]'),
    ],
    "protocol 1: an object with `task`, `id`, `args` ...": [both(field("headers", {}), body(PROTOCOL_1))],
    "`model=`, `instances=` among `kwargs`": [
        body('[[], {"model": "churn", "instances": [[2]]}, {}]'),
        body('[["churn"], {"instances": [[2]]}, {}]'),
        body('[[[[2]]], {"model": "churn"}, {}]'),
        body('[[{"model": "a", "version": "1", "predictions": [[2]]}], {"model": "churn"}, {}]'),
        body('[[{"model":"a","version":"1","predictions":[[2]],"classes":["x"]}], {"model": "churn"}, {}]'),
        body('[["unused"], {"model": "churn", "instances": [[2]]}, {}]'),
    ],
    **{
        f"`{name}`{option} in `embed`": [
            embed({name: [SIGNATURE]} if name != "chord" else {name: SIGNATURE}),
            both(
                field("headers", {}),
                body(json.dumps({**json.loads(PROTOCOL_1), "id": "a", name: [SIGNATURE]}))
                if name != "chord"
                else body(json.dumps({**json.loads(PROTOCOL_1), "id": "a", name: SIGNATURE})),
            ),
        ]
        for name, option in (
            ("callbacks", " (`link`)"),
            ("errbacks", " (`link_error`)"),
            ("chain", ""),
            ("chord", ""),
        )
    },
    "signatures of more than 1 MiB, or of `map`, `starmap` and `chunks`": [
        embed({"callbacks": [{**SIGNATURE, "args": ["x" * 1024 * 1024]}]}),
        embed({"chain": [{**SIGNATURE, "args": json.loads("[" * 100 + "]" * 100)}]}),
        embed({"callbacks": ["no signature"]}),
        embed({"chord": [SIGNATURE]}),
        *(
            embed({"callbacks": [{**SIGNATURE, "task": "celery.map", "subtask_type": kind}]})
            for kind in ("xmap", "xstarmap", "chunks", ["group"])
        ),
        embed({"errbacks": [{**GROUP, "kwargs": {"tasks": [{**SIGNATURE, "subtask_type": "xmap"}]}}]}),
    ],
    "other arguments, or an unknown option": [
        body('[["churn", [[1]]], {"model": "churn"}, {}]'),
        body('[["churn", [[1]]], {"instances": [[1]]}, {}]'),
        body('[[1], {"model": "churn"}, {}]'),
        body('[[], {"model": "churn", "instances": null}, {}]'),
        body('[[[[1]], 2], {"model": "churn"}, {}]'),
        body('[["churn"], {}, {}]'),
        body("[null, {}, {}]"),
        body('[["churn", [[1]]], {"verison": "1"}, {}]'),
    ],
    "`NaN`": [body('[["churn", [[NaN]]], {}, {}]')],
    "`Infinity`": [body('[["churn", [[Infinity]]], {}, {}]'), body('[["churn", [[-Infinity]]], {}, {}]')],
    'half of a surrogate pair (`"\\ud800"`)': [body('[["churn", [["\\ud800"]]], {}, {}]')],
    "values that kombu marks with their type": [
        body('[["churn", [[{"__type__": "decimal", "__value__": "1.5"}]]], {}, {}]')
    ],
    # fields
    "`body`": [body('[["churn", [[2]]], {}, {}]')],
    "`content-type: application/json`": [both(field("content-type", None), body('[["churn", [[2]]], {}, {}]'))],
    "`content-type` of pickle, msgpack, yaml and others": [
        both(field("content-type", content_type), body(b"\x80\x04."))
        for content_type in (
            "application/x-python-serialize",
            "application/x-msgpack",
            "application/x-yaml",
            "a/b",
        )
    ],
    "`content-encoding`": [
        both(field("content-encoding", encoding), body('[["churn", [[2]]], {}, {}]'.encode(encoding)))
        for encoding in ("utf-8", "utf-16", "utf-32", "latin-1")
    ],
    "`headers`, `properties`": [lambda parts: parts.pop("headers") and body(PROTOCOL_1)(parts)],
    # headers
    "`id`": [header("id", "b"), header("id", "b" * 255)],
    "`eta` (`countdown`)": [header("eta", time) for time in TIMES],
    "`expires`": [header("expires", time) for time in TIMES],
    "`timelimit` (`time_limit`, `soft_time_limit`)": [
        header("timelimit", limits) for limits in ([1, None], [None, 1], [0, 0], [3600, 1800])
    ],
    "`compression`": [
        both(header("compression", name), body(zlib.compress(b'[["churn", [[2]]], {}, {}]')))
        for name in ("application/x-gzip", "zlib", "gzip")
    ],
    "`ignore_result`": [header("ignore_result", True)],
    "`traceparent`, `tracestate`, `sentry-trace`, `baggage`": [
        header("traceparent", "00-0123456789abcdef0123456789abcdef-0123456789abcdef-01"),
        header("sentry-trace", "0123456789abcdef0123456789abcdef-0123456789abcdef-1"),
    ],
    "`retries`": [header("retries", 7)],
    "`lang`, `origin`, `argsrepr`, `kwargsrepr`, `shadow`": [
        header(name, "other") for name in ("lang", "origin", "argsrepr", "kwargsrepr", "shadow")
    ],
    "`parent_id`, `group`": [header("parent_id", "p"), header("group", "g")],
    "`root_id`, `group_index`": [
        both(header("group", "g"), header("root_id", "r")),
        both(header("group", "g"), header("group_index", 1)),
    ],
    "`replaced_task_nesting`": [header("replaced_task_nesting", 1)],
    "`stamped_headers`, `stamps`, headers of your own": [
        header("stamped_headers", ["tenant"]),
        header("stamps", {"tenant": ["a"]}),
        header("tenant", "a"),
    ],
    # properties
    "`priority`": [prop("priority", 3), prop("priority", "3"), prop("priority", 99)],
    "`body_encoding`": [
        both(field("body", '[["churn", [[2]]], {}, {}]'), prop("body_encoding", None)),
        both(field("body", '[["churn", [[2]]], {}, {}]'), lambda parts: parts["properties"].pop("body_encoding")),
    ],
    "`correlation_id`": [both(without_header("id"), prop("correlation_id", "b"))],
    "`reply_to`": [prop("reply_to", CLIENT)],
    "`expiration`": [prop("expiration", "0")],
    "`delivery_mode`, `delivery_info`, `delivery_tag`": [
        prop("delivery_mode", 1),
        prop("delivery_info", {"routing_key": "other"}),
        prop("delivery_tag", "x"),
    ],
    "`content_type`, `message_id`, `timestamp`, `type`, `user_id`, `app_id`, `cluster_id`": [
        prop(name, "x")
        for name in ("content_type", "message_id", "timestamp", "type", "user_id", "app_id", "cluster_id")
    ],
}
#: Rows that are tested elsewhere: the reason.
ELSEWHERE = {
    "the model of another queue": "tests/unit/execution/test_opening.py: the parser does not know the queue",
    "`task`": "below: a valid value is that of every message",
    "`headrace-signature`": "tests/unit/wire/test_signing.py",
}
#: Changes to a heeded item that are refused, as its row says.
REFUSED = [
    header("task", "headrace.predit"),
    header("task", None),
    header("eta", 5),
    header("eta", 1_900_000_000.5),
    header("expires", 60),
    header("expires", "soon"),
    *(
        header("compression", name)
        for name in ("application/x-bz2", "application/x-lzma", "application/zstd", "br")
    ),
]


def documented() -> dict[str, str]:
    """Return the verdict of each row of the page."""
    rows = re.findall(r"^\| (.+?) \| (heeded|refused|ignored) \|", PAGE.read_text(), re.MULTILINE)
    assert len(rows) == len(dict(rows))
    return dict(rows)


def celery_message(**options: Any) -> dict[str, Any]:
    """Return the message that a plain Celery client sends, with its body as it is in the queue."""
    sent: list[dict[str, Any]] = []
    with Celery(broker="memory://") as app, Connection("memory://") as connection, connection.channel() as channel:
        channel._put = lambda queue, message, **_: sent.append(message)
        args = ["churn", [[1]]]
        app.send_task("headrace.predict", args, task_id="a", queue="q", producer=Producer(channel), **options)
    return json.loads(json.dumps(sent[0]))


@pytest.fixture(scope="module")
def original() -> dict[str, Any]:
    return celery_message()


def read(parts: dict[str, Any]) -> tuple[ParsedMessage, Any]:
    """Return the parsed message, and its job with checked instances. Raises InvalidInput."""
    parsed = parse(json.dumps(parts).encode())
    job = parsed.to_job()
    return parsed, msgspec.structs.replace(job, instances=check_instances(CONTRACT, job.instances))


def changed(original: dict[str, Any], change: Change) -> dict[str, Any]:
    parts = json.loads(json.dumps(original))
    change(parts)
    return parts


def effect(parts: dict[str, Any]) -> Any:
    parsed, job = read(parts)
    return job, parsed.reply_to, parsed.ignore_result, parsed.canvas


def test_the_page_has_a_row_for_each_test_and_a_test_for_each_row():
    assert {*ROWS, *ELSEWHERE} == documented().keys()


@pytest.mark.parametrize("row", ROWS)
def test_a_row_holds(row: str, original: dict[str, Any]):
    verdict, before = documented()[row], effect(original)
    for change in ROWS[row]:
        parts = changed(original, change)
        if verdict == "refused":
            assert parse(json.dumps(parts).encode()).id == "a"
            with pytest.raises(InvalidInput):
                read(parts)
        else:
            assert (effect(parts) == before) == (verdict == "ignored")


@pytest.mark.parametrize("change", REFUSED)
def test_other_values_of_heeded_items_are_refused_under_the_id(change: Change, original: dict[str, Any]):
    parts = changed(original, change)
    assert parse(json.dumps(parts).encode()).id == "a"
    with pytest.raises(InvalidInput):
        read(parts)


def test_the_page_lists_every_header_and_property_that_celery_writes():
    link = {"countdown": 5, "expires": 60, "time_limit": 9, "soft_time_limit": 8, "shadow": "x", "priority": 3}
    message = celery_message(**link, compression="zlib", ignore_result=True, root_id="r", parent_id="p", retries=1)
    items = set(re.findall(r"`([\w-]+)`", " ".join(documented())))
    headers, properties = message.pop("headers"), message.pop("properties")
    assert {*headers, *properties} <= items
    assert {*message} <= items | {"content-type"}


def test_an_id_that_is_too_long_is_read_nowhere(original: dict[str, Any]):
    parts = changed(original, both(header("id", "b" * 256), prop("correlation_id", "c" * 256)))
    with pytest.raises(MalformedMessage):
        read(parts)
