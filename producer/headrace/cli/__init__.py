"""The `headrace` command line."""

from __future__ import annotations

import click

import headrace
from headrace.cli.commands import Commands

main = Commands(
    name="headrace",
    help="Put prediction jobs on a queue, get their outcomes, and run the workers that predict.",
    epilog="Exit codes: 0 all good, 1 error, 2 usage, 3 some jobs failed, 4 timed out, 130 interrupted.",
    context_settings={"help_option_names": ["-h", "--help"]},
)
click.version_option(headrace.__version__, message="headrace %(version)s")(main)
