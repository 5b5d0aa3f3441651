"""What a profile keeps of a version's rows, and what the index says of other rows."""

from __future__ import annotations

import math
import random
import struct
from collections import Counter
from typing import Any

import pytest

from headrace.catalog.contract import Array, Contract, Feature, Named, Output, Text
from headrace_worker.drift.psi import chance_psi, compare_columns, psi, sum_hours
from headrace_worker.profile import CellLocator, Profile, build_profile

NAMED = Named(
    features=(
        Feature(name="age", kind="number", nullable=True),
        Feature(name="plan", kind="category"),
        Feature(name="paid", kind="boolean"),
    )
)


def contract(given: Named | Array | Text, **methods: Output) -> Contract:
    return Contract(model="churn", version="1", input=given, methods=methods or {"predict": Output(shape=())})


def people(count: int, *, age: float = 40, free: float = 0.3, seed: int = 0) -> list[dict[str, Any]]:
    chance = random.Random(seed)
    return [
        {
            "age": None if chance.random() < 0.1 else chance.gauss(age, 10),
            "plan": "free" if chance.random() < free else "gold",
            "paid": chance.random() < 0.5,
        }
        for _ in range(count)
    ]


def rows_of(made: Profile, of: Contract, instances: list[Any], predictions: list[Any]) -> list[int]:
    cells, found = CellLocator(made, of), Counter[int]()
    for instance, prediction in zip(instances, predictions, strict=True):
        found.update([*cells.locate_instance(instance), *cells.locate_prediction(prediction)])
    return [found[cell] for cell in range(made.cells)]


def verdicts(made: Profile, rows: list[int]) -> dict[str, str]:
    return {one.name: one.verdict for one in compare_columns(made, rows)}


def test_rows_of_the_same_sort_are_stable_and_what_moved_is_named():
    of = contract(NAMED, predict_proba=Output(shape=(2,), classes=("no", "yes")))
    then = people(2000)
    made = build_profile(of, then, [[0.5, row / 2000] for row in range(2000)])
    same = people(700, seed=1)
    stable = rows_of(made, of, same, [[0.5, random.Random(row).random()] for row in range(700)])
    assert set(verdicts(made, stable).values()) == {"stable"}
    moved = rows_of(made, of, people(700, age=60, free=0.9, seed=2), [[0.5, 0.99]] * 700)
    assert verdicts(made, moved) == {
        "age": "drifted",
        "plan": "drifted",
        "paid": "stable",
        "prediction[no]": "stable",
        "prediction[yes]": "drifted",
    }


def test_a_profile_counted_with_its_own_rows_has_an_index_of_0():
    of = contract(NAMED)
    then = people(300)
    made = build_profile(of, then, ["no"] * 300)
    rows = rows_of(made, of, then, ["no"] * 300)
    assert rows == [row for column in made.columns for row in column.rows]
    assert [one.psi for one in compare_columns(made, rows)] == [pytest.approx(0)] * 4


def test_missing_values_are_counted_apart_and_are_drift_too():
    of = contract(NAMED)
    made = build_profile(of, people(500), ["no"] * 500)
    rows = rows_of(made, of, [{**person, "age": None} for person in people(300)], ["no"] * 300)
    age = compare_columns(made, rows)[0]
    assert (age.missing, age.verdict) == (1.0, "drifted")
    assert 0.05 < age.missing_in_profile < 0.15


def test_few_rows_say_nothing():
    of = contract(NAMED)
    made = build_profile(of, people(500), ["no"] * 500)
    rows = rows_of(made, of, people(49), ["no"] * 49)
    assert {(one.psi, one.verdict) for one in compare_columns(made, rows)} == {(None, "too few rows")}


def test_the_index_is_that_of_the_books():
    # 0.2 more in one of two cells: (0.7 - 0.5) ln(0.7 / 0.5) + (0.3 - 0.5) ln(0.3 / 0.5)
    assert psi([50, 50, 0], [70, 30, 0]) == pytest.approx(0.2 * math.log(7 / 5) - 0.2 * math.log(3 / 5))
    assert chance_psi([50, 50, 0], [70, 30, 0]) == pytest.approx(0.02)


def test_a_true_is_no_1_and_values_never_seen_share_a_cell():
    of = contract(Named(features=(Feature(name="code", kind="category"),)))
    made = build_profile(of, [{"code": value} for value in [1] * 60 + [True] * 40], [0.0] * 100)
    (code,) = made.features
    assert sorted(code.rows) == [0, 0, 40, 60]
    cells = CellLocator(made, of)
    assert len({*cells.locate_instance({"code": 1}), *cells.locate_instance({"code": True})}) == 2
    assert [*cells.locate_instance({"code": "new"})] == [*cells.locate_instance({"code": 7})] == [2]


def test_numbers_of_a_few_values_have_a_bin_each_and_a_constant_one_in_all():
    of = contract(Array(shape=(2,)))
    made = build_profile(of, [[row % 3, 7.0] for row in range(300)], [1.0] * 300)
    assert [column.bounds for column in made.features] == [(0.5, 1.5), ()]
    assert [column.rows for column in made.features] == [(100, 100, 100, 0), (300, 0)]


@pytest.mark.parametrize(
    ("given", "instance", "features"),
    [
        (Text(), "cold wet rain", 1),
        (Array(shape=(28, 28)), [[0.0] * 28] * 28, 0),
        (Array(shape=(4000,)), [0.0] * 4000, 0),
        (Array(shape=(5,)), [0.0] * 5, 5),
    ],
)
def test_what_has_no_features_of_its_own_is_told_by_its_predictions(given: Any, instance: Any, features: int):
    made = build_profile(contract(given), [instance] * 100, ["a"] * 100)
    assert len(made.features) == features
    assert len(made.predictions) == 1


def test_a_prediction_that_is_no_number_any_more_counts_as_missing():
    of = contract(Array(shape=(1,)))
    made = build_profile(of, [[1.0]] * 100, [float(row) for row in range(100)])
    assert rows_of(made, of, [[1.0]], ["what"])[-1] == 1


def test_hours_are_summed_and_what_is_stored_otherwise_does_no_harm():
    hour = struct.pack(">3I", 1, 2, 2**32 - 1)
    assert sum_hours([hour, None, hour[:4], hour + b"more and more", b"xyz"], 3) == [3, 4, 2 * (2**32 - 1)]
