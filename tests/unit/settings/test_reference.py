"""docs/reference/settings.md against the settings there are."""

from __future__ import annotations

import re

import msgspec

from headrace.settings import PREFIX
from headrace_worker.dashboard.settings import DashboardSettings
from headrace_worker.settings import WorkerSettings
from tests.support import ROOT

REFERENCE = ROOT / "docs" / "reference" / "settings.md"


def test_every_setting_stands_in_the_reference_with_its_default_and_no_other_does() -> None:
    rows = re.findall(r"^\| `(HEADRACE_\w+)` \|\s*`?([^|`]*?)`?\s*\|", REFERENCE.read_text(), re.MULTILINE)
    documented = {name: default.strip() for name, default in rows}
    settings = {
        PREFIX + field.name.upper(): _shown(field.default)
        for kind in (WorkerSettings, DashboardSettings)
        for field in msgspec.structs.fields(kind)
    }
    assert documented == settings


def _shown(default: object) -> str:
    if isinstance(default, bool):
        return str(default).lower()
    return str(int(default)) if isinstance(default, float) and default.is_integer() else str(default)
