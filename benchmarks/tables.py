"""Tables as plain text and as Markdown, and the place on a page that is written by a program."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

#: The head, and the rows.
Table = list[list[str]]


def aligned(table: Table) -> str:
    """In columns, the head underlined."""
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    lines = []
    for number, row in enumerate(table):
        cells = [
            cell.ljust(width) if not at else cell.rjust(width)
            for at, (cell, width) in enumerate(_zip(row, widths))
        ]
        lines.append("  ".join(cells).rstrip())
        if number == 0:
            lines.append("  ".join("-" * width for width in widths))
    return "\n".join(lines)


def _zip(row: Sequence[str], widths: Sequence[int]) -> list[tuple[str, int]]:
    return list(zip(row, widths, strict=True))


def piped(table: Table) -> str:
    """In Markdown; a table of numbers has them on the right."""
    head, *rows = table
    ruled = ["---", *("---:" for _ in head[1:])] if _is_numbers(rows) else ["---" for _ in head]
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, ruled, *rows])


def _is_numbers(rows: Table) -> bool:
    return bool(rows) and all(cell[:1].isdigit() or not cell for row in rows for cell in row[1:])


def put_between(page: Path, begin: str, end: str, text: str) -> None:
    """Put the text between two marks of a page, in place of what is there. Raises ValueError without marks."""
    before, first, rest = page.read_text(encoding="utf-8").partition(begin)
    _, last, after = rest.partition(end)
    if not (first and last):
        raise ValueError(f"{page} lacks the marks between which results belong")
    page.write_text(f"{before}{begin}\n\n{text}\n\n{end}{after}", encoding="utf-8")
