"""An alias resolves to a version, and a rollback finds the former one."""

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


def change(
    former: str | None, version: str | None, *, alias: str = "production", rollback: bool = False
) -> AliasChange:
    return AliasChange(alias=alias, version=version, former=former, by="ann", rollback=rollback)


def test_without_aliases_the_newest_version_serves():
    assert aliases().resolve(None, "a") is None


def test_a_job_that_names_no_version_runs_on_production():
    assert aliases(production=Alias(version="6")).resolve(None, "a") == "6"


def test_a_job_may_name_a_number_or_an_alias():
    named = aliases(production=Alias(version="6"), tested=Alias(version="7"))
    assert named.resolve("3", "a") == "3"
    assert named.resolve("tested", "a") == "7"


def test_an_unknown_alias_is_refused_with_the_names_of_the_aliases():
    named = aliases(production=Alias(version="6"), tested=Alias(version="7"))
    with pytest.raises(UnknownModel, match=r"'churn' has no alias 'stable'; it has production, tested"):
        named.resolve("stable", "a")


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5, 1.0])
def test_a_canary_takes_its_share_of_the_jobs_that_name_no_version(share: float):
    named = aliases(production=Alias(version="6"), canary=Alias(version="7", share=share))
    canary_share = sum(named.resolve(None, job) == "7" for job in JOBS) / len(JOBS)
    assert canary_share == pytest.approx(share, abs=0.03)
    assert named.resolve("6", "a") == "6"


def test_a_job_goes_to_the_canary_always_or_never():
    small = aliases(production=Alias(version="6"), canary=Alias(version="7", share=0.1))
    large = aliases(production=Alias(version="6"), canary=Alias(version="7", share=0.3))
    first = {job for job in JOBS if small.resolve(None, job) == "7"}
    assert first == {job for job in JOBS if small.resolve(None, job) == "7"}
    assert first < {job for job in JOBS if large.resolve(None, job) == "7"}


def test_with_a_canary_and_no_production_the_other_jobs_run_on_the_newest_version():
    named = aliases(canary=Alias(version="7", share=0.5))
    assert {named.resolve(None, job) for job in JOBS} == {None, "7"}


def test_aliases_are_decoded_as_encoded_and_undecodable_entries_are_skipped():
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
def test_an_alias_that_is_no_word_is_refused(name: object):
    with pytest.raises(InvalidInput, match="an alias is"):
        check_alias(name)


def test_a_rollback_goes_to_the_former_version():
    history = [change("2", "3"), change("1", "2"), change(None, "1")]
    assert find_former_version(history, "production") == "2"


def test_a_rollback_of_a_rollback_goes_further_back():
    history = [change("3", "2", rollback=True), change("2", "3"), change("1", "2"), change(None, "1")]
    assert find_former_version(history, "production") == "1"
    history.insert(0, change("2", "1", rollback=True))
    assert find_former_version(history, "production") is None


def test_a_version_promoted_again_after_a_rollback_can_be_rolled_back_again():
    history = [change("2", "3"), change("3", "2", rollback=True), change("2", "3"), change(None, "2")]
    assert find_former_version(history, "production") == "2"


def test_changes_of_other_aliases_do_not_count():
    history = [change("7", "8", alias="canary"), change("1", "2"), change(None, "1")]
    assert find_former_version(history, "production") == "1"
