"""The picture of a terminal shows each line whole, at its time, and is well-formed."""

from __future__ import annotations

import importlib.util
from types import ModuleType
from xml.etree import ElementTree as ET

import pytest

from tests.support import ROOT

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def terminal() -> ModuleType:
    spec = importlib.util.spec_from_file_location("terminal", ROOT / "docs" / "terminal.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def texts(picture: str) -> list[ET.Element]:
    return list(ET.fromstring(picture).iter(f"{SVG}text"))


def test_each_line_is_shown_at_its_time_and_long_ones_are_wrapped(terminal: ModuleType) -> None:
    shown = texts(terminal.render("demo", [(5.0, "a <b> & c"), (10.0, ""), (15.0, "word " * 40)]))
    assert [text.text for text in shown[:3]] == ["$ demo", "a <b> & c", None]
    assert [text.get("style") for text in shown[1:3]] == ["animation-duration: 1.00s", "animation-duration: 2.00s"]
    assert len(shown) == 5
    assert all(len(text.text or "") <= terminal.COLUMNS for text in shown)
    assert all(text.get("style") == "animation-duration: 3.00s" for text in shown[3:])


def test_a_command_is_recorded_with_its_times(terminal: ModuleType) -> None:
    lines = terminal.record(["sh", "-c", "echo one; echo two >&2"])
    assert [line for _, line in lines] == ["one", "two"]
    assert 0 < lines[0][0] <= lines[1][0] < 60


def test_a_command_that_fails_makes_no_picture(terminal: ModuleType) -> None:
    with pytest.raises(SystemExit, match="exited with 3"):
        terminal.record(["sh", "-c", "exit 3"])


def test_the_picture_of_the_first_page_is_the_demo_that_succeeded() -> None:
    picture = (ROOT / "docs" / "images" / "demo.svg").read_text()
    lines = [text.text or "" for text in texts(picture)]
    assert lines[0] == "$ headrace demo"
    assert any(line.startswith("All good, in ") for line in lines)
    assert str(ROOT) not in picture
