"""`headrace top`: show queues, workers, rates and failures, live."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING

import click

from headrace.cli import options
from headrace.cli.command import command
from headrace.terminal import write_control

if TYPE_CHECKING:
    from headrace.monitor.overview import Monitor

# The terminal's alternate screen without a cursor, and the way back. Lines are written over the former ones:
# clearing the screen first would flicker.
_OPEN_SCREEN, _CLOSE_SCREEN = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"
_HOME, _CLEAR_LINE, _CLEAR_BELOW = "\x1b[H", "\x1b[K", "\x1b[J"
#: Columns and rows of output that is not for a terminal, which is not cut.
_UNLIMITED = 1000


@command(examples=["headrace top", "headrace top --once --json"])
@click.option(
    "--every",
    type=options.SECONDS,
    default=2.0,
    show_default=True,
    metavar="SECONDS",
    help="Seconds between updates.",
)
@click.option("--once", is_flag=True, help="Listen for --every seconds, print one page, and exit.")
@options.as_json
@options.url
def top(*, every: float, once: bool, as_json: bool, url: str | None) -> None:
    """Show queues, bulk runs, workers, rates, times and failures, live. Ctrl-C ends it.

    Rates and times are of the last 10 seconds, from the events of workers; a time is from submission to
    prediction. Where standard output is not a terminal, each update is printed as a page.
    """
    from headrace.client.common import resolve_settings
    from headrace.connection.url import describe_server
    from headrace.monitor.overview import Monitor

    settings = resolve_settings(url, None)
    full_screen = sys.stdout.isatty() and not (as_json or once)
    with Monitor(settings) as monitor:
        try:
            with _alternate_screen() if full_screen else nullcontext():
                while True:
                    # The first page has no rates, as no events were received yet; full screen is better than
                    # nothing.
                    if not full_screen:
                        monitor.listen(time.monotonic() + every)
                    _show(monitor, describe_server(settings), full_screen=full_screen, once=once, as_json=as_json)
                    if once:
                        return
                    if full_screen:
                        monitor.listen(time.monotonic() + every)
        except KeyboardInterrupt:
            return


def _show(monitor: Monitor, server: str, *, full_screen: bool, once: bool, as_json: bool) -> None:
    from headrace.cli.top_format import format_outage, format_overview, to_json_object
    from headrace.errors import BrokerUnavailable

    size = shutil.get_terminal_size()
    width, height = size.columns, size.lines
    if not (full_screen or sys.stdout.isatty()):
        width = height = _UNLIMITED
    try:
        overview = monitor.read()
    except BrokerUnavailable as error:
        if once:
            raise
        if not full_screen:
            click.echo(f"headrace: {error}", err=True)
            return
        lines = format_outage(str(error), width)
    else:
        if as_json:
            options.print_json(to_json_object(overview))
            sys.stdout.flush()
            return
        lines = format_overview(overview, server, width=width)
    if full_screen:
        text = "".join(f"{line}{_CLEAR_LINE}\r\n" for line in lines[: height - 1])
        write_control(sys.stdout, f"{_HOME}{text}{_CLEAR_BELOW}")
        sys.stdout.flush()
    else:
        for line in lines:
            options.print_styled(line)


@contextmanager
def _alternate_screen() -> Iterator[None]:
    write_control(sys.stdout, _OPEN_SCREEN)
    try:
        yield
    finally:
        write_control(sys.stdout, _CLOSE_SCREEN)
        sys.stdout.flush()
