"""The model of the claim protocol within small bounds; `make model-check` checks it within larger ones."""

from __future__ import annotations

import re

import pytest

from tests.model_check.checker import MODEL, check, check_fault, find_missing_tool
from tests.model_check.configurations import CONFIGURATIONS, FAULTS, Configuration, Fault, find_configuration

SHORT = [configuration for configuration in CONFIGURATIONS if configuration.is_short]
SHORT_FAULTS = [fault for fault in FAULTS if fault.is_short]

needs_spin = pytest.mark.skipif(
    find_missing_tool() is not None, reason="spin or gcc is not installed; on Debian: apt-get install spin gcc"
)


@needs_spin
@pytest.mark.parametrize("configuration", SHORT, ids=lambda configuration: configuration.name)
def test_the_model_keeps_its_promises(configuration: Configuration) -> None:
    result = check(configuration)
    assert result.violation is None, result.steps
    assert result.states > 10_000


@needs_spin
@pytest.mark.parametrize("fault", SHORT_FAULTS, ids=lambda fault: fault.name)
def test_a_planted_fault_is_found(fault: Fault) -> None:
    result = check_fault(fault)
    assert result.violation is not None
    assert result.steps


def test_each_fault_of_the_model_is_planted_by_the_check() -> None:
    assert set(re.findall(r"FAULT_[A-Z_]+", MODEL.read_text())) - {"FAULT_"} == {fault.name for fault in FAULTS}
    assert all(find_configuration(fault.configuration) for fault in FAULTS)


def test_each_configuration_defines_what_the_model_reads() -> None:
    source = MODEL.read_text()
    for configuration in CONFIGURATIONS:
        for define in configuration.defines:
            assert re.search(rf"\b{define.partition('=')[0]}\b", source)
