"""The `headrace` command line.

commands.py             the group of all commands; exit codes; errors as one line
command.py              commands and groups with examples
help.py, completion.py  the help of a command; scripts for shells
json_objects.py         the JSON objects of --json
tables.py               tables that fit a terminal
options.py              options and output functions that several commands share
submit.py, status.py, result.py, cancel.py, explain.py    single jobs
batch.py                the rows of a file
bulk.py, bulk_format.py, bulk_progress.py                 bulk runs
queues.py, top.py, top_format.py                          queues and workers
dead.py, dead_letter_format.py                            dead letters
doctor.py               checks of Redis, workers and Flower
redis.py                prepare a Redis: functions
"""

from __future__ import annotations

import click

import headrace
from headrace.cli.commands import Commands

main = Commands(
    name="headrace",
    help="Put prediction jobs on a queue, get their outcomes, and run the workers that predict.",
    examples=["headrace help submit", """headrace submit churn '{"age": 41, "plan": "gold"}' --wait"""],
    epilog="Exit codes: 0 success, 1 error, 2 usage, 3 some jobs failed, 4 timed out, 130 interrupted.",
    context_settings={"help_option_names": ["-h", "--help"]},
)
click.version_option(headrace.__version__, "-V", "--version", message="headrace %(version)s")(main)
