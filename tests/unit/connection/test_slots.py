"""The node of a cluster that serves a slot: what nodes answer, and what their errors mean."""

from __future__ import annotations

from typing import Any

import pytest
import redis
from redis import exceptions

from headrace.connection.cluster_errors import NotACluster, SlotNotServed
from headrace.connection.commands import run
from headrace.connection.slots import Node, SlotPrimary, leads_elsewhere, parse_slots

A, B, C = Node("a", 1), Node("b", 2), Node("c", 3)
SLOT = SlotPrimary([A], "{headrace}:").slot


def named(primary: Node | None, *others: Node) -> list[Any]:
    """Return a reply to CLUSTER SLOTS in which `primary` serves all slots. Without one, the slot has none."""
    if primary is None:
        return [[0, SLOT - 1, [b"a", 1, b"id"]]]
    nodes = [[node.host.encode(), node.port, b"id"] for node in (primary, *others)]
    return [[0, SLOT - 1, [b"z", 9, b"id"]], [SLOT, 16_383, *nodes]]


class Nodes:
    """Nodes that answer as the test sets them."""

    def __init__(self, **answers: Any) -> None:
        self.answers, self.asked_hosts = answers, list[str]()

    def __call__(self, node: Node) -> Any:
        self.asked_hosts.append(node.host)
        answer = self.answers[node.host]
        if isinstance(answer, Exception):
            raise answer
        return answer


def find(slot: SlotPrimary, **answers: Any) -> Node:
    return run(Nodes(**answers), slot.search())


def test_the_slot_is_that_of_the_hash_tag() -> None:
    assert SlotPrimary([A], "{headrace}:").slot == SlotPrimary([A], "x{headrace}y:").slot == SLOT == 12_929


@pytest.mark.parametrize(
    ("node", "address"),
    [
        ([b"10.0.0.1", 6379, b"id"], Node("10.0.0.1", 6379)),
        ([b"node-1.example", 6379, b"id", [b"ip", b"10.0.0.1"]], Node("node-1.example", 6379)),
        ([b"", 6380, b"id"], Node("asked", 6380)),
        ([None, 6380, b"id", [b"ip", b"10.0.0.1"]], Node("asked", 6380)),
        ([b"?", 6379, b"id", [b"ip", b"10.0.0.1"]], Node("10.0.0.1", 6379)),
        ([b"2001:db8::1", 6379, b"id"], Node("2001:db8::1", 6379)),
    ],
)
def test_a_node_announces_an_address_a_name_or_nothing(node: list[Any], address: Node) -> None:
    assert parse_slots([[0, 16_383, node]], SLOT, Node("asked", 1))[0] == address


def test_a_node_of_an_unknown_host_is_no_address() -> None:
    assert parse_slots([[0, 16_383, [b"?", 6379, b"id", []]]], SLOT, A) == (None, ())


def test_nodes_are_asked_until_one_names_the_primary_and_then_no_more() -> None:
    slot = SlotPrimary([A, B, C], "{headrace}:")
    away = exceptions.ConnectionError("away")
    nodes = Nodes(a=away, b=named(None), c=named(C, B))
    assert run(nodes, slot.search()) == C
    assert nodes.asked_hosts[-1] == "c"
    slot.connected(C)
    assert run(nodes, slot.search()) == C
    assert nodes.asked_hosts.count("c") == 1


def test_nodes_that_an_answer_names_are_asked_when_those_of_the_url_are_away() -> None:
    slot = SlotPrimary([A], "{headrace}:")
    assert find(slot, a=named(A, B)) == A
    slot.failed(A)
    assert find(slot, a=exceptions.ConnectionError("away"), b=named(B, A), z=exceptions.TimeoutError()) == B


def test_a_node_that_failed_is_tried_again_only_if_all_still_name_it() -> None:
    slot = SlotPrimary([A, B, C], "{headrace}:")
    slot.connected(A)
    slot.failed(A)
    assert find(slot, a=named(A), b=named(A), c=named(B), z=named(A)) == B
    slot.failed(B)
    assert find(slot, a=named(B), b=named(B), c=named(B), z=named(B)) == B


def test_without_a_primary_the_search_ends_with_an_error() -> None:
    slot = SlotPrimary([A, B], "{headrace}:")
    with pytest.raises(SlotNotServed, match=f"slot {SLOT}"):
        find(slot, a=named(None), b=exceptions.TimeoutError("silent"))


@pytest.mark.parametrize(
    "error", [exceptions.AuthenticationError("x"), exceptions.NoPermissionError("x"), NotACluster()]
)
def test_an_answer_that_stays_the_same_ends_the_search(error: exceptions.RedisError) -> None:
    nodes = Nodes(a=error, b=error)
    with pytest.raises(type(error)):
        run(nodes, SlotPrimary([A, B], "{headrace}:").search())
    assert len(nodes.asked_hosts) == 1


@pytest.mark.parametrize(
    ("target", "primary"), [("b:2", B), (":7", Node("a", 7)), ("2001:db8::1:7", Node("2001:db8::1", 7))]
)
def test_moved_names_the_next_primary(target: str, primary: Node) -> None:
    slot = SlotPrimary([A], "{headrace}:")
    slot.connected(A)
    slot.refused(exceptions.MovedError(f"{SLOT} {target}"), A)
    assert find(slot) == primary


@pytest.mark.parametrize(
    "error",
    [exceptions.MovedError(f"{SLOT} ?:7"), exceptions.AskError(f"{SLOT} b:2"), exceptions.ClusterDownError("x")],
)
def test_after_another_refusal_the_nodes_are_asked(error: exceptions.RedisError) -> None:
    slot = SlotPrimary([A], "{headrace}:")
    slot.connected(A)
    slot.refused(error, A)
    assert find(slot, a=named(C)) == C


def test_a_late_refusal_of_a_former_primary_changes_nothing() -> None:
    slot = SlotPrimary([A], "{headrace}:")
    slot.connected(B)
    slot.refused(exceptions.MovedError(f"{SLOT} c:3"), A)
    assert find(slot) == B


def test_errors_that_lead_elsewhere_are_told_from_those_of_the_command() -> None:
    for text in (
        "MOVED 1 b:2",
        "ASK 1 b:2",
        "TRYAGAIN x",
        "CLUSTERDOWN x",
        "MASTERDOWN x",
        "READONLY x",
        "LOADING x",
    ):
        assert leads_elsewhere(redis.connection.DefaultParser.parse_error(text)), text
    assert leads_elsewhere(exceptions.ResponseError("UNBLOCKED force unblock, instance state changed"))
    for text in (
        "CROSSSLOT x",
        "WRONGTYPE x",
        "NOPERM x",
        "NOSCRIPT x",
        "OOM x",
        "ERR MOVED is a word of a script",
    ):
        assert not leads_elsewhere(redis.connection.DefaultParser.parse_error(text)), text
