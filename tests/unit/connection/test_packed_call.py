"""A call that is packed from a template has the bytes of redis-py's packing."""

from __future__ import annotations

import pytest
from hiredis import pack_command

from headrace.connection.packed_call import PackedCall
from headrace.connection.script_calls import Form
from headrace.submit.enqueue import ENQUEUE, Enqueuer
from headrace.wire.job_encoder import JobEncoder
from headrace.wire.keys import Keys
from headrace.wire.message import Job


@pytest.mark.parametrize("form", list(Form))
@pytest.mark.parametrize("prefix", ["", "100%d:", "ä{€}:"])
def test_the_bytes_are_those_of_the_whole_command(form: Form, prefix: str):
    keys, values = [f"{prefix}list", f"{prefix}delayed"], [1_000_000, 86400, "%b", 0]
    item = (f"{prefix}headrace:id:%s", b'"%d"\r\n\0', "ü".encode() * 700)
    command = ENQUEUE([*keys, item[0]], [*values, *item[1:]])
    packed = PackedCall(ENQUEUE, keys, values)
    for _ in range(2):  # the second time from the template
        assert packed.pack(form, *item) == pack_command(command.in_form(form))


@pytest.mark.parametrize("form", list(Form))
@pytest.mark.parametrize("listen", [None, "orders"])
@pytest.mark.parametrize("names", [["a"], ["a", "b"]])
def test_a_call_that_enqueues_jobs_is_packed_as_its_arguments(form: Form, listen: str | None, names: list[str]):
    encoder = JobEncoder(Job(id="", model="churn", instances=[None], listen=listen), None)
    enqueuer = Enqueuer(Keys("a:"), encoder, queue_limit=9, listen_limit=9, record_ttl=60)
    command = enqueuer.command([encoder.encode(name, b"[1]") for name in names], None)
    assert command.pack(form) == pack_command(command.in_form(form))  # type: ignore[arg-type]
