"""Profiles, and the drift of other rows from them."""

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


def make_contract(signature: Named | Array | Text, **methods: Output) -> Contract:
    return Contract(model="churn", version="1", input=signature, methods=methods or {"predict": Output(shape=())})


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


def count_rows(profile: Profile, contract: Contract, instances: list[Any], predictions: list[Any]) -> list[int]:
    """Return the rows in each cell of the profile."""
    locator, rows = CellLocator(profile, contract), Counter[int]()
    for instance, prediction in zip(instances, predictions, strict=True):
        rows.update([*locator.locate_instance(instance), *locator.locate_prediction(prediction)])
    return [rows[cell] for cell in range(profile.cells)]


def verdicts(profile: Profile, rows: list[int]) -> dict[str, str]:
    return {column.name: column.verdict for column in compare_columns(profile, rows)}


def test_rows_of_the_same_distribution_are_stable_and_columns_that_moved_are_named():
    contract = make_contract(NAMED, predict_proba=Output(shape=(2,), classes=("no", "yes")))
    profile = build_profile(contract, people(2000), [[0.5, row / 2000] for row in range(2000)])
    predictions = [[0.5, random.Random(row).random()] for row in range(700)]
    stable = count_rows(profile, contract, people(700, seed=1), predictions)
    assert set(verdicts(profile, stable).values()) == {"stable"}
    moved = count_rows(profile, contract, people(700, age=60, free=0.9, seed=2), [[0.5, 0.99]] * 700)
    assert verdicts(profile, moved) == {
        "age": "drifted",
        "plan": "drifted",
        "paid": "stable",
        "prediction[no]": "stable",
        "prediction[yes]": "drifted",
    }


def test_the_rows_of_the_profile_itself_have_an_index_of_0():
    contract, instances = make_contract(NAMED), people(300)
    profile = build_profile(contract, instances, ["no"] * 300)
    rows = count_rows(profile, contract, instances, ["no"] * 300)
    assert rows == [row for column in profile.columns for row in column.rows]
    assert [column.psi for column in compare_columns(profile, rows)] == [pytest.approx(0)] * 4


def test_missing_values_are_counted_separately_and_are_drift_too():
    contract = make_contract(NAMED)
    profile = build_profile(contract, people(500), ["no"] * 500)
    rows = count_rows(profile, contract, [{**person, "age": None} for person in people(300)], ["no"] * 300)
    age = compare_columns(profile, rows)[0]
    assert (age.missing, age.verdict) == (1.0, "drifted")
    assert 0.05 < age.missing_in_profile < 0.15


def test_few_rows_have_no_index():
    contract = make_contract(NAMED)
    profile = build_profile(contract, people(500), ["no"] * 500)
    rows = count_rows(profile, contract, people(49), ["no"] * 49)
    assert {(column.psi, column.verdict) for column in compare_columns(profile, rows)} == {(None, "too few rows")}


def test_the_index_is_the_one_in_textbooks():
    # 0.2 more in the first of two cells: (0.7 - 0.5) ln(0.7 / 0.5) + (0.3 - 0.5) ln(0.3 / 0.5)
    assert psi([50, 50, 0], [70, 30, 0]) == pytest.approx(0.2 * math.log(7 / 5) - 0.2 * math.log(3 / 5))
    assert chance_psi([50, 50, 0], [70, 30, 0]) == pytest.approx(0.02)


def test_true_and_1_have_different_cells_and_unknown_values_share_a_cell():
    contract = make_contract(Named(features=(Feature(name="code", kind="category"),)))
    profile = build_profile(contract, [{"code": value} for value in [1] * 60 + [True] * 40], [0.0] * 100)
    (code,) = profile.features
    assert sorted(code.rows) == [0, 0, 40, 60]
    locator = CellLocator(profile, contract)
    assert len({*locator.locate_instance({"code": 1}), *locator.locate_instance({"code": True})}) == 2
    assert [*locator.locate_instance({"code": "new"})] == [*locator.locate_instance({"code": 7})] == [2]


def test_a_few_distinct_numbers_have_a_bin_each_and_a_constant_has_a_single_bin():
    contract = make_contract(Array(shape=(2,)))
    profile = build_profile(contract, [[row % 3, 7.0] for row in range(300)], [1.0] * 300)
    assert [column.bounds for column in profile.features] == [(0.5, 1.5), ()]
    assert [column.rows for column in profile.features] == [(100, 100, 100, 0), (300, 0)]


@pytest.mark.parametrize(
    ("signature", "instance", "features"),
    [
        (Text(), "cold wet rain", 1),
        (Array(shape=(28, 28)), [[0.0] * 28] * 28, 0),
        (Array(shape=(4000,)), [0.0] * 4000, 0),
        (Array(shape=(5,)), [0.0] * 5, 5),
    ],
)
def test_an_input_without_columns_is_compared_by_its_predictions(signature: Any, instance: Any, features: int):
    profile = build_profile(make_contract(signature), [instance] * 100, ["a"] * 100)
    assert len(profile.features) == features
    assert len(profile.predictions) == 1


def test_a_prediction_that_is_not_a_number_any_more_counts_as_missing():
    contract = make_contract(Array(shape=(1,)))
    profile = build_profile(contract, [[1.0]] * 100, [float(row) for row in range(100)])
    assert count_rows(profile, contract, [[1.0]], ["text"])[-1] == 1


def test_hours_are_summed_and_strings_of_another_length_do_no_harm():
    hour = struct.pack(">3I", 1, 2, 2**32 - 1)
    assert sum_hours([hour, None, hour[:4], hour + b"more and more", b"xyz"], 3) == [3, 4, 2 * (2**32 - 1)]
