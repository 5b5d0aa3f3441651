"""The option --class of the exporter: names and models of classes of workers."""

from __future__ import annotations

import pytest

from headrace.errors import InvalidInput
from headrace_worker.telemetry.worker_classes import WorkerClass, parse_class, parse_classes


def test_a_class_has_a_name_and_models_and_one_without_models_serves_every_model() -> None:
    assert parse_class("forest=tumour,prices") == WorkerClass("forest", ("tumour", "prices"))
    assert parse_class("default=") == WorkerClass("default", ())


@pytest.mark.parametrize(
    "text",
    [
        "",
        "forest",
        "=tumour",
        "forest=tumour,",
        "forest=,",
        "forest=tumour, prices",
        "forest=tu\nmour",
        "forest=tumour=prices",
        'fo"rest=tumour',
        "fo\nrest=tumour",
        "forest=\u202etumour",
        "forest=" + "m" * 65,
        "forest=*",
        "forest=predict.tumour\x06\x163",
    ],
)
def test_a_text_that_is_no_class_is_refused_in_one_printable_line(text: str) -> None:
    with pytest.raises(InvalidInput) as refusal:
        parse_class(text)
    assert str(refusal.value).isprintable()
    assert len(str(refusal.value)) < 250


def test_two_classes_of_one_name_are_refused() -> None:
    assert [each.name for each in parse_classes(["a=x", "b=x"])] == ["a", "b"]
    with pytest.raises(InvalidInput, match="two classes are named 'a'"):
        parse_classes(["a=x", "a=y"])
