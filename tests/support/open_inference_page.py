"""The programs, commands and outputs of docs/how-to/use-open-inference.md."""

from __future__ import annotations

import re

from tests.support import ROOT

PAGE = (ROOT / "docs" / "how-to" / "use-open-inference.md").read_text()
#: By the name in their first line: a program, and what the page says that it prints.
PROGRAMS: dict[str, tuple[str, str]] = {
    name: (program, output)
    for name, program, output in re.findall(
        r"^```python\n# (\w+\.py)\n(.*?)^```\n\n```text\n(.*?)^```", PAGE, re.M | re.S
    )
}
#: Commands with curl, and the answers that the page shows below.
COMMANDS: list[tuple[str, str]] = re.findall(
    r"^```sh\n([^`]*?curl.*?)^```\n\n```json\n(.*?)^```", PAGE, re.M | re.S
)


def program(name: str, address: str) -> str:
    """Return a program that calls the gateway at this address, as host:port."""
    return PROGRAMS[name][0].replace("localhost:8080", address)
