"""The Redis users that the documentation defines."""

from __future__ import annotations

import re

from tests.support import ROOT

_PAGE = ROOT / "docs" / "reference" / "acl.md"


def users() -> list[str]:
    """Return the Redis users of the reference page, as lines of an `aclfile`."""
    (block,) = re.findall(r"^```\n(user .*?)^```", _PAGE.read_text(), re.MULTILINE | re.DOTALL)
    return str(block).splitlines()
