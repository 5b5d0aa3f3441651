"""What an alias stands for, and where it goes back to."""

from __future__ import annotations

import pytest

from headrace.catalog.aliases import (
    Alias,
    AliasChange,
    Aliases,
    check_alias,
    decode_aliases,
    encode_alias,
    find_former_version,
)
from headrace.errors import InvalidInput, UnknownModel

JOBS = [f"job-{number}" for number in range(4000)]


def aliases(**by_name: Alias) -> Aliases:
    return Aliases("churn", by_name)


def moved(
    former: str | None, version: str | None, *, alias: str = "production", rollback: bool = False
) -> AliasChange:
    return AliasChange(alias=alias, version=version, former=former, by="ann", rollback=rollback)


def test_without_aliases_the_newest_version_serves():
    assert aliases().resolve(None, "a") is None


def test_a_job_that_names_no_version_runs_on_production():
    assert aliases(production=Alias(version="6")).resolve(None, "a") == "6"


def test_a_job_may_name_a_number_or_an_alias():
    known = aliases(production=Alias(version="6"), tested=Alias(version="7"))
    assert known.resolve("3", "a") == "3"
    assert known.resolve("tested", "a") == "7"


def test_an_unknown_alias_is_refused_with_those_there_are():
    known = aliases(production=Alias(version="6"), tested=Alias(version="7"))
    with pytest.raises(UnknownModel, match=r"'churn' has no alias 'stable'; it has production, tested"):
        known.resolve("stable", "a")


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5, 1.0])
def test_a_canary_takes_its_share_of_the_jobs_that_name_no_version(share: float):
    known = aliases(production=Alias(version="6"), canary=Alias(version="7", share=share))
    took = sum(known.resolve(None, job) == "7" for job in JOBS) / len(JOBS)
    assert took == pytest.approx(share, abs=0.03)
    assert known.resolve("6", "a") == "6"


def test_a_job_goes_to_the_canary_always_or_never():
    small = aliases(production=Alias(version="6"), canary=Alias(version="7", share=0.1))
    large = aliases(production=Alias(version="6"), canary=Alias(version="7", share=0.3))
    first = {job for job in JOBS if small.resolve(None, job) == "7"}
    assert first == {job for job in JOBS if small.resolve(None, job) == "7"}
    assert first < {job for job in JOBS if large.resolve(None, job) == "7"}


def test_a_canary_without_production_leaves_the_others_on_the_newest():
    known = aliases(canary=Alias(version="7", share=0.5))
    assert {known.resolve(None, job) for job in JOBS} == {None, "7"}


def test_aliases_are_read_as_they_were_written_and_what_is_not_readable_is_left_out():
    stored = [
        b"canary",
        encode_alias(Alias(version="7", share=0.1)),
        b"odd",
        b"{}",
        b"worse",
        b"\xff",
        b"\xff",
        b"{}",
    ]
    assert decode_aliases("churn", stored).by_name == {"canary": Alias(version="7", share=0.1)}


@pytest.mark.parametrize("name", ["", "Production", "1", "a b", "a/b", "x" * 65, "\u00e4", None, 3])
def test_an_alias_is_a_word(name: object):
    with pytest.raises(InvalidInput, match="an alias is"):
        check_alias(name)


def test_a_rollback_goes_to_where_the_alias_was_before():
    history = [moved("2", "3"), moved("1", "2"), moved(None, "1")]
    assert find_former_version(history, "production") == "2"


def test_a_rollback_of_a_rollback_goes_further_back():
    history = [moved("3", "2", rollback=True), moved("2", "3"), moved("1", "2"), moved(None, "1")]
    assert find_former_version(history, "production") == "1"
    history.insert(0, moved("2", "1", rollback=True))
    assert find_former_version(history, "production") is None


def test_what_is_promoted_again_after_a_rollback_can_be_rolled_back_again():
    history = [moved("2", "3"), moved("3", "2", rollback=True), moved("2", "3"), moved(None, "2")]
    assert find_former_version(history, "production") == "2"


def test_the_moves_of_other_aliases_do_not_count():
    history = [moved("7", "8", alias="canary"), moved("1", "2"), moved(None, "1")]
    assert find_former_version(history, "production") == "1"
