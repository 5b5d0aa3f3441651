"""Records examples of what commands print with `--json`, for docs/reference/cli-json*.md: `make docs-json`.

A section of the page has the name of a command, and a block of JSON for each form of its objects. What differs
from run to run, such as a time, is as the run had it. Names of the machine are replaced.
"""

from __future__ import annotations

import json
import re
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.support.cli_json_site import run_all_commands
from tests.support.strict_schemas import find_form

PAGES = [Path(__file__).parent / "reference" / name for name in ("cli-json.md", "cli-json-models.md")]
#: Columns of the page.
_WIDTH = 116
#: Characters of a text, and items of a list or an object without fixed names, that an example shows.
_MAX_TEXT, _MAX_ITEMS = 90, 3
#: A digest is shortened too: a search for secrets takes it for one.
_DIGEST, _DIGEST_START = re.compile(r"[0-9a-f]{64}"), 12
_BLOCK = re.compile(r"```json\n.*?```\n", re.DOTALL)


def main() -> None:
    """Run all commands and write the pages."""
    with tempfile.TemporaryDirectory() as folder:
        text = json.dumps(run_all_commands(Path(folder)))
        for name, replacement in {folder: "/srv", socket.gethostname(): "host-1", "root@": "ops@"}.items():
            text = text.replace(name, replacement)
    for page in PAGES:
        page.write_text(fill_page(page.read_text(encoding="utf-8"), json.loads(text)), encoding="utf-8")


def fill_page(page: str, printed: dict[str, list[Any]]) -> str:
    """Return the page with the examples of what each command printed."""
    sections = re.split(r"(?m)^(?=## )", page)
    return "".join(_fill_section(section, printed) for section in sections)


def _fill_section(section: str, printed: dict[str, list[Any]]) -> str:
    command = section.partition("\n")[0].removeprefix("## ")
    if command not in printed:
        return section
    examples = {find_form(command, value): value for value in reversed(printed[command])}
    forms = iter(sorted(form for form in examples if form is not None))
    return _BLOCK.sub(lambda _: f"```json\n{format_example(examples[next(forms)])}\n```\n", section)


def format_example(value: Any) -> str:
    """Return a value as lines of JSON that fit the page; long texts and long lists are shortened."""
    return "\n".join(_format(_shorten(value), "", ""))


def _shorten(value: Any) -> Any:
    if isinstance(value, str) and _DIGEST.fullmatch(value):
        return value[:_DIGEST_START] + "..."
    if isinstance(value, str) and len(value) > _MAX_TEXT:
        return value[: _MAX_TEXT - 3] + "..."
    if isinstance(value, list):
        return [_shorten(item) for item in value[:_MAX_ITEMS]]
    return {name: _shorten(item) for name, item in value.items()} if isinstance(value, dict) else value


def _format(value: Any, indent: str, head: str) -> Iterator[str]:
    """Yield the lines of a value behind `head`, such as the name of its field."""
    line = f"{indent}{head}{json.dumps(value, ensure_ascii=False)}"
    if len(line) <= _WIDTH or not isinstance(value, dict | list) or not value:
        yield line
        return
    opening, closing = "{}" if isinstance(value, dict) else "[]"
    yield f"{indent}{head}{opening}"
    items = value.items() if isinstance(value, dict) else (("", item) for item in value)
    inner, row = f"{indent}  ", ""
    for number, (name, item) in enumerate(items, start=1):
        lines = list(_format(item, inner, f"{json.dumps(name)}: " if name else ""))
        lines[-1] += "," if number < len(value) else ""
        if len(lines) == 1 and row and len(row) + len(lines[0]) - len(indent) - 1 <= _WIDTH:
            row += f" {lines[0].strip()}"
            continue
        if row:
            yield row
        row = lines.pop()
        yield from lines
        if lines:
            yield row
            row = ""
    if row:
        yield row
    yield f"{indent}{closing}"


if __name__ == "__main__":
    main()
