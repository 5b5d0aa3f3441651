"""`headrace top`."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING

import click
import msgspec

from headrace.cli import options

if TYPE_CHECKING:
    from headrace.monitor.overview import Monitor

# The screen that a terminal shows in place of the one with the prompt, without a cursor, and the way back; and how
# a line is written over what was there: to clear the screen first would flicker.
_OPEN, _CLOSE = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"
_HOME, _END_OF_LINE, _REST = "\x1b[H", "\x1b[K", "\x1b[J"


@click.command()
@click.option(
    "--every", type=options.SECONDS, default=2.0, show_default=True, metavar="SECONDS", help="Between two looks."
)
@click.option("--once", is_flag=True, help="Look once, after listening for so long, and end.")
@options.as_json
@options.url
def top(*, every: float, once: bool, as_json: bool, url: str | None) -> None:
    """Show queues, workers, rates, times and failures, live. Ctrl-C ends it.

    Rates and times are of the last 10 seconds, as workers tell of their jobs; a time is that from submission to
    prediction. Where standard output is no terminal, what is seen is printed again and again.
    """
    from headrace.client.common import resolve_settings
    from headrace.connection.url import describe_server
    from headrace.monitor.overview import Monitor

    settings = resolve_settings(url, None)
    screen = sys.stdout.isatty() and not (as_json or once)
    with Monitor(settings) as watch:
        try:
            with _screen() if screen else nullcontext():
                while True:
                    # The first look is worth little: nobody was listened to. On a screen it is better than none.
                    if not screen:
                        watch.listen(time.monotonic() + every)
                    _show(watch, describe_server(settings), screen=screen, once=once, as_json=as_json)
                    if once:
                        return
                    if screen:
                        watch.listen(time.monotonic() + every)
        except KeyboardInterrupt:
            return


def _show(watch: Monitor, where: str, *, screen: bool, once: bool, as_json: bool) -> None:
    from headrace.cli.top_format import away, page
    from headrace.errors import BrokerUnavailable

    size = shutil.get_terminal_size()
    # What goes into a file or a pipe is not cut.
    columns, rows = (size.columns, size.lines) if screen or sys.stdout.isatty() else (1000, 1000)
    try:
        seen = watch.read()
    except BrokerUnavailable as error:
        if once:
            raise
        if not screen:
            click.echo(f"headrace: {error}", err=True)
            return
        lines = away(str(error), columns)
    else:
        if as_json:
            options.print_json(msgspec.to_builtins(seen))
            sys.stdout.flush()
            return
        lines = page(seen, where, columns=columns)
    if screen:
        shown = "".join(f"{line}{_END_OF_LINE}\r\n" for line in lines[: rows - 1])
        click.echo(f"{_HOME}{shown}{_REST}", nl=False)
        sys.stdout.flush()
    else:
        for line in lines:
            click.echo(line)


@contextmanager
def _screen() -> Iterator[None]:
    click.echo(_OPEN, nl=False)
    try:
        yield
    finally:
        click.echo(_CLOSE, nl=False)
