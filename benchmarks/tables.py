"""Tables as plain text and as Markdown, and the generated section of a page."""

from __future__ import annotations

from pathlib import Path

#: Rows of cells; the first row is the header.
Table = list[list[str]]


def as_text(table: Table) -> str:
    """Format a table as text columns, with a ruled header."""
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    lines = []
    for number, row in enumerate(table):
        cells = [
            cell.rjust(width) if column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
        if number == 0:
            lines.append("  ".join("-" * width for width in widths))
    return "\n".join(lines)


def as_markdown(table: Table) -> str:
    """Format a table as Markdown; columns are right-aligned where all their cells are numbers."""
    header, *rows = table
    rule = ["---", *("---:" for _ in header[1:])] if _is_numeric(rows) else ["---" for _ in header]
    return "\n".join("| " + " | ".join(row) + " |" for row in [header, rule, *rows])


def _is_numeric(rows: Table) -> bool:
    return bool(rows) and all(cell[:1].isdigit() or not cell for row in rows for cell in row[1:])


def replace_between(page: Path, begin: str, end: str, text: str) -> None:
    """Replace the text between two marks of a page. Raises ValueError where a mark is missing."""
    before, begin_mark, tail = page.read_text(encoding="utf-8").partition(begin)
    _, end_mark, after = tail.partition(end)
    if not (begin_mark and end_mark):
        raise ValueError(f"{page} lacks the marks {begin} and {end}, between which results are written")
    page.write_text(f"{before}{begin}\n\n{text}\n\n{end}{after}", encoding="utf-8")
