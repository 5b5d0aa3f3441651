"""docs/reference/settings.md has every setting with its default."""

from __future__ import annotations

import re

import msgspec

from headrace.settings import PREFIX
from headrace_gateway.notify.settings import NotifySettings
from headrace_gateway.settings import GatewaySettings
from headrace_worker.dashboard.settings import DashboardSettings
from headrace_worker.settings import WorkerSettings
from tests.support import ROOT

REFERENCE = ROOT / "docs" / "reference" / "settings.md"


def test_the_reference_lists_exactly_the_settings_with_their_defaults() -> None:
    rows = re.findall(r"^\| `(HEADRACE_\w+)` \|\s*`?([^|`]*?)`?\s*\|", REFERENCE.read_text(), re.MULTILINE)
    documented = {name: default.strip() for name, default in rows}
    settings = {
        PREFIX + field.name.upper(): _to_text(field.default)
        for kind in (WorkerSettings, DashboardSettings, GatewaySettings, NotifySettings)
        for field in msgspec.structs.fields(kind)
    }
    assert documented == settings


def _to_text(default: object) -> str:
    if isinstance(default, bool):
        return str(default).lower()
    return str(int(default)) if isinstance(default, float) and default.is_integer() else str(default)
