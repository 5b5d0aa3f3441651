"""The table of docs/reference/models.md: what became of each case."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Iterator, Sequence

from tests.support import ROOT
from tests.zoo.serving import Outcome

PAGE = ROOT / "docs" / "reference" / "models.md"
_BEGIN, _END = "<!-- zoo: begin -->", "<!-- zoo: end -->"
_WIDTH = 118
#: The methods that most classifiers have, and what the page says for them.
_ALL_SCORES = "`predict`, `predict_proba`, `predict_log_proba`, `decision_function`"
_SHORT_SCORES = "`predict` and the three scores of a classifier"


def write_page(outcomes: Sequence[Outcome]) -> None:
    """Replace the tables between the markers of the page."""
    before, _, rest = PAGE.read_text().partition(_BEGIN)
    after = rest.partition(_END)[2]
    PAGE.write_text("\n".join([before + _BEGIN, "", *_lines(outcomes), "", _END]) + after)


def summary(outcomes: Sequence[Outcome]) -> str:
    """Return how many cases have which outcome."""
    verdicts = Counter(outcome.verdict for outcome in outcomes)
    return (
        f"{len(outcomes)} models: {verdicts['equal']} answer as they do themselves, {verdicts['refused']} are "
        f"refused, {verdicts['wrong']} are wrong."
    )


def _lines(outcomes: Sequence[Outcome]) -> Iterator[str]:
    yield summary(outcomes)
    for group in dict.fromkeys(outcome.group for outcome in outcomes):
        members = [outcome for outcome in outcomes if outcome.group == group]
        yield from ("", f"### {group[0].upper()}{group[1:]}", "")
        yield from ("| model | outcome | runtime | largest difference |", "| --- | --- | --- | --- |")
        for outcome in members:
            if outcome.verdict == "equal":
                methods = ", ".join(f"`{method}`" for method in outcome.methods).replace(
                    _ALL_SCORES, _SHORT_SCORES
                )
                yield f"| {outcome.name} | {methods} | {outcome.runtime} | {outcome.difference:.0e} |"
            else:
                yield f"| {outcome.name} | {outcome.verdict} | | |"
        refused = [outcome for outcome in members if outcome.text]
        if refused:
            yield ""
        for text in dict.fromkeys(outcome.text for outcome in refused):
            names = ", ".join(outcome.name for outcome in refused if outcome.text == text)
            yield textwrap.fill(f"- {names}: {text}", _WIDTH, subsequent_indent="  ", break_long_words=False)
