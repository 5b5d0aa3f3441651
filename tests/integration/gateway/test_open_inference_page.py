"""The programs and commands of docs/how-to/use-open-inference.md do what the page says."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.support.gateway import RunningGateway, running_gateway
from tests.support.open_inference_page import COMMANDS, PROGRAMS, program
from tests.support.served_worker import Site


def run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_program_of_tritonclient_prints_what_the_page_shows(gateway: RunningGateway) -> None:
    address = gateway.url.removeprefix("http://")
    assert (
        run(sys.executable, "-c", program("with_tritonclient.py", address)) == PROGRAMS["with_tritonclient.py"][1]
    )


def test_the_commands_answer_what_the_page_shows(shared: Site, tmp_path: Path) -> None:
    assert [answer.count("\n") for _, answer in COMMANDS] == [2, 2]
    answers = []
    with running_gateway(shared.url, tmp_path) as gateway:
        for command, _ in COMMANDS:
            text = command.replace("http://localhost:8080", gateway.url).replace("curl ", "curl -sS -w '\\n' ")
            answers.append(run("sh", "-euc", text))
    answer, expected = json.loads(answers[0]), json.loads(COMMANDS[0][1])
    assert answer.pop("id")
    assert expected.pop("id") == "..."
    assert answer == expected
    assert answers[1] == COMMANDS[1][1]
