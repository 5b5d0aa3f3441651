"""The process that proves models: forked by a command, and a program of its own for a process with threads."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.support import ROOT

#: Packages a file twice in a fresh process, and prints what process proved it, and what it refused.
PROGRAM = """
import sys
from pathlib import Path
from headrace_worker.threads import bound_threads
bound_threads(1)
from headrace.errors import ModelError
from headrace_worker.packaging import prover
from headrace_worker.packaging.package import package
from headrace_worker.store.store import Store
if sys.argv[1] == "fork":
    prover.fork_prover()
store = Store(Path("models"))
for name in ("churn", "prices"):
    package(store, Path("model.skops"), name=name, example=Path("rows.json"))
process = prover._PROVER._process
print(type(process).__name__, process.poll())
try:
    package(store, Path("aborting.joblib"), name="other", example=Path("rows.json"), trust_pickle=True)
except ModelError as error:
    print(error)
print(package(store, Path("model.skops"), name="other", example=Path("rows.json")).title)
process.kill()
while process.poll() is None:
    pass
print(package(store, Path("model.skops"), name="churn", example=Path("rows.json")).title)
"""


class Aborting:
    """An object that aborts the process that unpickles it."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.abort, ()


def prove(folder: Path, kind: str) -> list[str]:
    """Run the program; return the lines of its output."""
    import skops.io
    from sklearn.linear_model import LogisticRegression

    rows = [[float(row % 7), float(row % 50)] for row in range(100)]
    skops.io.dump(LogisticRegression().fit(rows, [row[1] > 25 for row in rows]), folder / "model.skops")
    (folder / "rows.json").write_text("[[1, 2], [3, 40]]")
    (folder / "aborting.joblib").write_bytes(pickle.dumps(Aborting()))
    command = [sys.executable, "-c", PROGRAM, kind]
    completed = subprocess.run(
        command, cwd=folder, env={"PYTHONPATH": f"{ROOT}:{folder}"}, capture_output=True, text=True, timeout=120
    )
    assert completed.returncode == 0, completed.stderr
    return completed.stdout.splitlines()


def test_a_command_proves_models_in_forks_of_itself(tmp_path: Path) -> None:
    kind, crashed, added, again = prove(tmp_path, "fork")
    assert kind == "_Fork None"
    assert "which was ended by SIGABRT" in crashed
    assert (added, again) == ("other@1", "churn@2"), "a new process proves after the end of the first"


def test_another_process_starts_a_program_that_proves(tmp_path: Path) -> None:
    kind, crashed, added, again = prove(tmp_path, "program")
    assert kind == "Popen None"
    assert "which was ended by SIGABRT" in crashed
    assert (added, again) == ("other@1", "churn@2")
