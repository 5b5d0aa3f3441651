"""SIGTERM to the first process of a container while another program replaces it."""

from __future__ import annotations

import signal
import subprocess
import sys

#: Replaces itself, as if it were process 1, by PROGRAM: no test may be that for real.
REPLACED = """
import os, sys
os.getpid = lambda: 1
from headrace.cli.signals import hold_sigterm_as_process_1
hold_sigterm_as_process_1()
os.execv(sys.executable, [sys.executable, "-c", sys.argv[1]])
"""
#: Sets its handler a second after its start.
PROGRAM = """
import os, sys, time
print("started", flush=True)
time.sleep(1)
os.getpid = lambda: 1
from headrace.cli.signals import exit_on_sigterm_as_process_1
exit_on_sigterm_as_process_1()
time.sleep(60)
"""


def test_a_signal_before_the_second_program_has_its_handler_ends_it():
    command = [sys.executable, "-c", REPLACED, PROGRAM]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with process.stdout:
        assert process.stdout.readline() == "started\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 128 + signal.SIGTERM
