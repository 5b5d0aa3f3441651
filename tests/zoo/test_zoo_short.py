"""A dozen models of the zoo, served by a real worker; `make zoo` runs all."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.zoo.collection import REFUSALS, SHORT, all_cases, is_unexpected
from tests.zoo.instances import find_difference
from tests.zoo.serving import Outcome, run_cases


@pytest.mark.filterwarnings("ignore")  # of estimators that scikit-learn will remove
def test_models_of_the_most_different_kinds_answer_as_they_do_themselves_or_are_refused(tmp_path: Path) -> None:
    cases = [case for case in all_cases() if case.title in SHORT]
    assert len(cases) == len(SHORT)
    outcomes = list(run_cases(cases, tmp_path, runtime="sklearn"))
    assert [outcome for outcome in outcomes if is_unexpected(outcome)] == []
    assert {outcome.verdict for outcome in outcomes} == {"equal", "refused"}
    assert len(outcomes) == len(cases)


@pytest.mark.filterwarnings("ignore")
def test_there_are_more_than_120_cases_and_each_has_a_title_of_its_own() -> None:
    titles = [case.title for case in all_cases()]
    assert len(titles) == len(set(titles)) > 250
    assert set(SHORT) | REFUSALS.keys() <= set(titles)


@pytest.mark.parametrize(
    ("expected", "answer", "difference"),
    [
        (1.0, 1.0 + 1e-12, 1e-12),
        (1.0, 1.1, None),
        (1, 1.0, None),
        (True, 1, None),
        ([1.0, "a"], [1.0, "a"], 0.0),
        ([1.0], [1.0, 2.0], None),
        (None, 0.0, None),
    ],
)
def test_answers_are_compared_with_their_types(expected: object, answer: object, difference: float | None) -> None:
    measured = find_difference(expected, answer, 1e-9)
    assert measured == (None if difference is None else pytest.approx(difference, rel=1e-3))


def test_a_refusal_that_is_not_expected_is_a_fault() -> None:
    assert is_unexpected(Outcome("frames", "any", "refused", text="a sentence"))
    assert is_unexpected(Outcome("frames", "any", "wrong"))
    assert not is_unexpected(Outcome("frames", "any", "equal"))
