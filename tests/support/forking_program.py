"""Run a module as a program whose workers are forks of `fork_server`.

python -m tests.support.forking_program MODULE ARGUMENT...
"""

from __future__ import annotations

import runpy
import sys

from headrace_worker.local import stack
from tests.support.forked_processes import start_python


def main() -> None:
    """Run the module of the first argument."""
    stack.start_process = start_python  # type: ignore[assignment]  # it has the methods of Popen that are used
    sys.argv = sys.argv[1:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
