"""The commands and files of docs/tutorial.md, run from top to bottom."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

TUTORIAL = Path(__file__).parents[2] / "docs" / "tutorial.md"
BLOCK = re.compile(r"^```(\w+)(?: (\S+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.mark.timeout(400)  # it imports scikit-learn in a dozen processes
def test_the_tutorial_runs_from_top_to_bottom(tmp_path: Path) -> None:
    environ = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    stack: subprocess.Popen[bytes] | None = None
    output = ""
    try:
        for language, option, text in BLOCK.findall(TUTORIAL.read_text()):
            if option.startswith("file="):
                (tmp_path / option.removeprefix("file=")).write_text(text)
            elif option == "background":
                with (tmp_path / "dev.out").open("wb") as log:
                    stack = subprocess.Popen(text.split(), cwd=tmp_path, env=environ, stdout=log)
                environ["HEADRACE_REDIS_URL"] = _wait_for_url(tmp_path / "dev.out", stack)
            elif language == "sh" and not text.startswith("export"):
                completed = subprocess.run(  # each command of a block must succeed
                    ["sh", "-ec", text],
                    cwd=tmp_path,
                    env=environ,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                    timeout=150,
                )
                assert completed.returncode == 0, f"{text}{completed.stdout}"
                output += completed.stdout
    finally:
        if stack is not None:
            stack.send_signal(signal.SIGINT)
            stack.wait(timeout=30)
    assert "churn@1  Pipeline(ColumnTransformer, LogisticRegression)" in output
    assert "predicts as the model's own predictions for the table: 500 rows, largest difference" in output
    assert "70 answers" in output
    assert "did you mean 'plan'?" in output
    assert "'predictions': ['stays']" in output
    predicted = (tmp_path / "predicted.csv").read_text().splitlines()
    assert predicted[0] == "age,plan,prediction,error"
    assert len(predicted) == 501
    assert "production of churn is churn@1" in output
    assert re.search(r"^canary +churn@2 +[1-9]\d* +0.00%", output, re.MULTILINE), output
    assert "production of churn is churn@2 (was churn@1)" in output
    assert "production of churn is churn@1 (was churn@2)" in output
    assert "feature 'plan' has a category the model does not know; it knows basic, gold" in output
    assert re.search(r"^reason +bad input$", output, re.MULTILINE), output
    assert "production of churn is churn@3 (was churn@1)" in output
    replayed, _, rest = output.partition("1 dead letter replayed")[2].partition("no dead letters")
    assert replayed.strip() == "stays", output
    assert re.search(r"predicted by version 3 .*\n.*success", rest), output


def _wait_for_url(output: Path, stack: subprocess.Popen[bytes]) -> str:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if match := re.search(r"export HEADRACE_REDIS_URL=(\S+)", output.read_text()):
            return match[1]
        if stack.poll() is not None:
            break
        time.sleep(0.1)
    pytest.fail(f"`headrace dev` did not start: {output.read_text()}")
