"""Tables that give way to the width of a terminal. In a pipe or a file, nothing is left out or shortened.

On a narrow terminal texts are shortened between words, and then the least important columns are left out. No cell
is cut inside a word, as half an id or a number would mislead: a table that is still too wide stays so.
"""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Container, Mapping, Sequence
from typing import IO, Any

import click
import msgspec

#: Columns of a text that is shortened, before a column is left out for it, and when none is left that could be.
_SHORT_TEXT, _SHORTEST_TEXT = 24, 8
_GAP = 2


class Column(msgspec.Struct, frozen=True):
    """A column of a table. On a narrow terminal, the column with the highest `drop_order` is left out first.

    A column of `drop_order` 0 is never left out. A text is shortened before.
    """

    title: str
    cells: list[str]
    drop_order: int = 0
    align_right: bool = True
    is_text: bool = False

    @property
    def width(self) -> int:
        """The width of the widest cell."""
        return max(len(cell) for cell in (self.title, *self.cells))

    def shortened(self, width: int) -> Column:
        """Return the column with cells of at most `width` characters, cut between words."""
        cells = [
            textwrap.shorten(cell, width, placeholder=" ...") if len(cell) > width else cell for cell in self.cells
        ]
        return msgspec.structs.replace(self, cells=cells)


def terminal_width(stream: IO[str]) -> int | None:
    """Return the columns of the terminal that a stream writes to; None if it is no terminal."""
    return shutil.get_terminal_size().columns if stream.isatty() else None


def fit_columns(columns: Sequence[Column], width: int | None) -> list[Column]:
    """Return the columns that fit into `width` characters, with texts shortened; all as they are for None."""
    shown = list(columns)
    if width is None:
        return shown
    while True:
        excess = measure_width(shown) - width
        if excess <= 0:
            return shown
        has_optional = any(column.drop_order for column in shown)
        shortest = _SHORT_TEXT if has_optional else _SHORTEST_TEXT
        texts = [column for column in shown if column.is_text and column.width > shortest]
        widest = max(texts, key=lambda column: column.width, default=None)
        available = sum(column.width - shortest for column in texts)
        if widest is not None and (available >= excess or not has_optional):
            shorter = widest.shortened(max(shortest, widest.width - excess))
            if shorter.width < widest.width:
                shown[shown.index(widest)] = shorter
                continue
        if not has_optional:
            return shown
        shown.remove(max(shown, key=lambda column: column.drop_order))


def measure_width(columns: Sequence[Column]) -> int:
    """Return the width of a table."""
    return sum(column.width for column in columns) + _GAP * (len(columns) - 1)


def format_columns(columns: Sequence[Column]) -> list[str]:
    """Return a table as lines, of which the first has the titles."""
    return [
        (" " * _GAP)
        .join(
            cell.rjust(column.width) if column.align_right else cell.ljust(column.width)
            for cell, column in zip(cells, columns, strict=True)
        )
        .rstrip()
        for cells in zip(*((column.title, *column.cells) for column in columns), strict=True)
    ]


def format_table(
    rows: Sequence[Sequence[str]],
    *,
    right: Container[int] = (),
    drops: Mapping[int, int] | None = None,
    texts: Container[int] = (),
    width: int | None = None,
) -> list[str]:
    """Return rows as lines with aligned columns, in `width` characters; None is any width.

    Columns have numbers: those in `right` are aligned right, those in `texts` are shortened, and `drops` has the
    `drop_order` of those that may be left out. Unprintable characters are escaped.
    """
    escaped = [[escape_unprintable(cell) for cell in row] for row in rows]
    columns = [
        Column(title, cells, (drops or {}).get(number, 0), number in right, number in texts)
        for number, (title, *cells) in enumerate(zip(*escaped, strict=True))
    ]
    return format_columns(fit_columns(columns, width))


def print_table(rows: Sequence[Sequence[str]], *, err: bool = False, **shape: Any) -> None:
    """Print a table as wide as the terminal. `shape` is that of `format_table`."""
    width = terminal_width(sys.stderr if err else sys.stdout)
    for line in format_table(rows, width=width, **shape):
        click.echo(line, err=err)


def escape_unprintable(text: str) -> str:
    """Return text from elsewhere for one line of a terminal, with escapes in place of unprintable characters."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode() for character in text
    )
