"""The units of deploy/systemd/ are ones systemd takes, and hold what they start."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support import ROOT

UNITS = sorted((ROOT / "deploy" / "systemd").glob("*.service"))

pytestmark = pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd is not installed here")


def analyze(*words: str) -> str:
    done = subprocess.run(["systemd-analyze", *words], capture_output=True, text=True, timeout=60)
    return done.stdout + done.stderr


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_systemd_has_nothing_to_say_against_a_unit(unit: Path) -> None:
    said = analyze("verify", "--man=no", str(unit)).splitlines()
    complaints = [line for line in said if unit.stem.split("@")[0] in line]
    # That Headrace is not installed where these tests run is not the unit's fault.
    assert [line for line in complaints if "/opt/headrace/bin/headrace is not executable" not in line] == []


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_a_unit_may_do_little(unit: Path) -> None:
    said = analyze("security", "--offline=true", str(unit))
    found = re.search(r"Overall exposure level.*: ([\d.]+)", said)
    assert found, said
    assert float(found[1]) <= 2.0


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_a_unit_may_take_so_much_and_no_more(unit: Path) -> None:
    text = unit.read_text()
    for limit in ("CPUQuota", "MemoryMax", "MemorySwapMax", "TasksMax"):
        assert re.search(rf"^{limit}=", text, re.MULTILINE), limit
