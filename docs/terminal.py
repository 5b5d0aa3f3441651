"""Record a command's real output as a picture of a terminal: `make docs-terminal` writes docs/images/demo.svg.

Each line appears after the time it took, at five times the pace. A reader who wants no motion, or whose program
knows none, sees the whole output.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import textwrap
import time
from html import escape
from pathlib import Path

ROOT = Path(__file__).parents[1]
#: How much faster than the command the picture is.
PACE = 5
#: Columns of the terminal, and the size of a character in pixels.
COLUMNS, WIDTH, HEIGHT = 112, 7.8, 19
#: Space around the lines, and the height of the title bar, in pixels.
MARGIN, BAR = 16, 34

_STYLE = """\
    rect { fill: #f7f9fa; stroke: #cbd2d9 }
    text { font: 13px ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; fill: #1f2933; white-space: pre }
    .prompt { font-weight: 600; fill: #00796b }
    circle { fill: #cbd2d9 }
    @keyframes show { from { opacity: 0 } to { opacity: 0 } }
    @media (prefers-reduced-motion: no-preference) { .line { animation: show linear } }
    @media (prefers-color-scheme: dark) {
      rect { fill: #1b2229; stroke: #3e4c59 }
      text { fill: #e4e7eb }
      .prompt { fill: #4db6ac }
      circle { fill: #3e4c59 }
    }"""


def record(command: list[str]) -> list[tuple[float, str]]:
    """Run a command; return its lines, each with the seconds from its start."""
    started = time.monotonic()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:  # noqa: S603  # the caller's command
        assert process.stdout is not None  # noqa: S101  # for the type checker
        lines = [(time.monotonic() - started, line.rstrip()) for line in process.stdout]
    if process.returncode != 0:
        sys.exit(f"{' '.join(command)} exited with {process.returncode}")
    return lines


def render(title: str, lines: list[tuple[float, str]]) -> str:
    """Return a terminal with a command and its timed lines, as SVG."""
    rows: list[tuple[float, str]] = []
    for seconds, line in lines:
        wrapped = textwrap.wrap(
            line, COLUMNS, subsequent_indent="     ", break_on_hyphens=False, replace_whitespace=False
        )
        rows += [(seconds / PACE, row) for row in wrapped or [""]]
    width, height = COLUMNS * WIDTH + 2 * MARGIN, BAR + (len(rows) + 1) * HEIGHT + MARGIN
    texts = [f'  <text class="prompt" x="{MARGIN}" y="{BAR + 14}">$ {escape(title)}</text>']
    for number, (seconds, row) in enumerate(rows, 1):
        y = BAR + 14 + number * HEIGHT
        style = f"animation-duration: {seconds:.2f}s"
        texts.append(
            f'  <text class="line" style="{style}" x="{MARGIN}" y="{y}" xml:space="preserve">{escape(row)}</text>'
        )
    circles = "".join(f'<circle cx="{MARGIN + 6 + 18 * n}" cy="17" r="5"/>' for n in range(3))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" role="img">\n'
        f"  <title>{escape(title)}</title>\n  <style>\n{_STYLE}\n  </style>\n"
        f'  <rect x="0.5" y="0.5" width="{width - 1:g}" height="{height - 1:g}" rx="8"/>\n  {circles}\n'
        + "\n".join(texts)
        + "\n</svg>\n"
    )


def main() -> None:
    """Record `headrace demo`."""
    parser = argparse.ArgumentParser(description="Record `headrace demo` as a picture.")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "images" / "demo.svg")
    options = parser.parse_args()
    lines = record([str(Path(sys.executable).with_name("headrace")), "demo"])
    options.out.write_text(render("headrace demo", lines), encoding="utf-8")


if __name__ == "__main__":
    main()
