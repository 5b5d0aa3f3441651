"""An argument that is not UTF-8 is a usage error where it must be a text."""

from __future__ import annotations

import click
import pytest
from click.testing import CliRunner

from headrace.cli import main
from headrace.cli.commands import Commands


@pytest.mark.parametrize(
    ("argument", "code", "words"),
    [("job-\udcef", 2, r"an argument is not UTF-8: 'job-\udcef'"), ("job", 1, "unexpected UnicodeEncodeError")],
)
def test_an_argument_that_cannot_be_encoded_is_named(
    monkeypatch: pytest.MonkeyPatch, argument: str, code: int, words: str
) -> None:
    @click.command
    @click.argument("job")
    def encode(job: str) -> None:
        f"{job}\ud800".encode()

    monkeypatch.setattr(Commands, "get_command", lambda *_: encode)
    result = CliRunner().invoke(main, ["encode", argument])
    assert (result.exit_code, words in result.stderr) == (code, True), result.stderr
