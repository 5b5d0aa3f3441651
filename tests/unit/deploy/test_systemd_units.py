"""The units of deploy/systemd/ are valid, and confine their processes."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support import ROOT

UNITS = sorted((ROOT / "deploy" / "systemd").glob("*.service"))

pytestmark = pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="needs systemd-analyze")


def analyze(*arguments: str) -> str:
    completed = subprocess.run(["systemd-analyze", *arguments], capture_output=True, text=True, timeout=60)
    return completed.stdout + completed.stderr


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_systemd_accepts_the_unit(unit: Path) -> None:
    lines = analyze("verify", "--man=no", str(unit)).splitlines()
    complaints = [line for line in lines if unit.stem.split("@")[0] in line]
    # Headrace is not installed under /opt where the tests run.
    assert [line for line in complaints if "/opt/headrace/bin/headrace is not executable" not in line] == []


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_the_unit_has_a_low_exposure_level(unit: Path) -> None:
    output = analyze("security", "--offline=true", str(unit))
    level = re.search(r"Overall exposure level.*: ([\d.]+)", output)
    assert level, output
    assert float(level[1]) <= 2.0


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_the_unit_limits_processors_memory_and_tasks(unit: Path) -> None:
    text = unit.read_text()
    for limit in ("CPUQuota", "MemoryMax", "MemorySwapMax", "TasksMax"):
        assert re.search(rf"^{limit}=", text, re.MULTILINE), limit
