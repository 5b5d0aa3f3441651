"""The entry point of `python -m headrace.cli`, which is the command `headrace`."""

from __future__ import annotations

from headrace.cli import main

main()
