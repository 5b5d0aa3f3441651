"""The valid inputs that are mutated: messages of every client, stored things, and files."""

from __future__ import annotations

import base64
import gzip
import json
import zlib
from typing import Any

import msgspec

from headrace.catalog.contract import Array, Contract, Feature, Named, Output
from headrace.wire.attempts import CRASH, LEASE_EXPIRED, REQUEUED, Attempt, encode_queued_message
from tests.support.foreign_clients import MODEL, TASK, gocelery_message

#: A contract with a feature of each kind, for files.
TABLE_CONTRACT = Contract(
    model="churn",
    version="3",
    input=Named(
        features=(
            Feature(name="age", kind="number", nullable=True),
            Feature(name="visits", kind="integer"),
            Feature(name="member", kind="boolean"),
            Feature(name="city", kind="string"),
            Feature(name="plan", kind="category", categories=("free", "gold")),
        )
    ),
    methods={"predict": Output(shape=())},
)
#: The contract of the model that answers messages.
ROW_CONTRACT = Contract(model=MODEL, version="1", input=Array(shape=(3,)), methods={"predict": Output(shape=())})


def messages() -> list[bytes]:
    """Return messages of Celery, in both protocols, compressed or not, with and without a canvas."""
    args = [MODEL, [[1, 0, 0], [2.5, 0, 0]]]
    canvas = {"callbacks": [_signature()], "errbacks": [_signature()], "chain": [_signature()], "chord": None}
    bodies: list[list[Any]] = [
        [args, {}, None],
        [args, {"version": "1", "method": "predict", "metadata": {"tenant": "a"}}, {}],
        [[], {"model": MODEL, "instances": [[1, 0, 0]]}, {"callbacks": None, "chord": None}],
        [args, {}, canvas],
    ]
    written = [gocelery_message(1, "job-1")]
    for number, body in enumerate(bodies):
        data = json.dumps(body).encode()
        written.append(_message(data.decode(), f"job-{number}", body_encoding=None))
        written.append(_message(base64.b64encode(data).decode(), f"job-{number}"))
        for compression, compress in (("application/zlib", zlib.compress), ("application/x-gzip", gzip.compress)):
            encoded = base64.b64encode(compress(data)).decode()
            written.append(_message(encoded, f"job-{number}", compression=compression))
    written.append(
        _message(base64.b64encode(b"\x80\x04}.").decode(), "job-9", content="application/x-python-serialize")
    )
    return written


def queued_messages() -> list[bytes]:
    """Return messages with a history, as workers write them."""
    attempts = [
        Attempt(cause=cause, owner="host/1/a", at_ms=1_700_000_000_000, claim_size=size)
        for cause, size in ((CRASH, 8), (REQUEUED, 0), (LEASE_EXPIRED, 1), ("error:OSError", 2))
    ]
    return [encode_queued_message(attempts[:count], message) for message in messages() for count in (1, 4)]


def files() -> dict[str, list[bytes]]:
    """Return files to predict, by their format."""
    csv = 'age,visits,member,city,plan\n41,3,true,Bern,gold\n,1,false,"a, ""b""",free\n'
    row = {"age": 41.5, "visits": 3, "member": True, "city": "Bern", "plan": "gold"}
    lines = "".join(json.dumps(row) + "\n" for _ in range(3))
    return {
        "csv": [
            csv.encode(),
            b"\xef\xbb\xbf" + csv.replace(",", ";").encode(),
            csv.replace("\n", "\r\n").encode(),
        ],
        "jsonl": [lines.encode(), lines.replace("\n", "\r\n").encode()],
    }


def encode(value: Any) -> bytes:
    """Encode a value as it is stored."""
    return msgspec.json.encode(value)


def _signature() -> dict[str, Any]:
    return {"task": "store", "args": [], "kwargs": {}, "options": {"queue": "celery"}, "immutable": False}


def _message(
    body: str, job: str, *, body_encoding: str | None = "base64", content: str = "application/json", **headers: Any
) -> bytes:
    message = {
        "body": body,
        "content-encoding": "utf-8",
        "content-type": content,
        "headers": {"lang": "py", "task": TASK, "id": job, "root_id": job, "group": None, "eta": None, **headers},
        "properties": {
            "correlation_id": job,
            "reply_to": "0" * 32,
            "delivery_mode": 2,
            "delivery_info": {"exchange": "", "routing_key": "x"},
            "priority": 0,
            "body_encoding": body_encoding,
            "delivery_tag": job,
        },
    }
    return json.dumps(message).encode()
