"""SIGTERM to the first process of a container while one program replaces another in it.

For process 1 the kernel ignores a signal without a handler. A container that is told to stop in the seconds before
the second program has its handlers would be killed, and only after its grace period.
"""

from __future__ import annotations

import os
import signal
import threading

from headrace.cli.commands import exit_on_signal


def hold_sigterm_as_process_1() -> None:
    """Hold SIGTERM back until the program that replaces this process calls `exit_on_sigterm_as_process_1`."""
    if os.getpid() == 1:
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])


def exit_on_sigterm_as_process_1() -> None:
    """Make SIGTERM end this process, also one that was held, until the program sets handlers of its own."""
    if os.getpid() != 1 or threading.current_thread() is not threading.main_thread():
        return
    if signal.getsignal(signal.SIGTERM) == signal.SIG_DFL:
        signal.signal(signal.SIGTERM, exit_on_signal)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
