"""Tests of the mapping from the columns and cells of a file to the contract's values."""

from __future__ import annotations

import pytest

from headrace.batch.columns import make_cell_reader, match_columns
from headrace.catalog.contract import Array, Contract, Feature, InputSchema, Named, Output, Text, Tokens
from headrace.errors import InvalidInput


def contract(model_input: InputSchema) -> Contract:
    return Contract(model="churn", version="3", input=model_input, methods={"predict": Output(shape=())})


NAMED = contract(
    Named(
        features=(
            Feature(name="age", kind="integer"),
            Feature(name="plan", kind="category", categories=("gold", "basic")),
        )
    )
)


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        ("number", "1.5", 1.5),
        ("number", " 7 ", 7.0),
        ("number", "1e3", 1000.0),
        ("number", "", None),
        ("number", "NA", None),
        ("number", "null", None),
        ("number", "1_000", "1_000"),
        ("number", "1,5", "1,5"),
        ("number", "1\x00", "1\x00"),
        ("integer", "7", 7),
        ("integer", "7.0", 7.0),
        ("integer", "N/A", None),
        ("integer", "9" * 5000, float("inf")),
        ("boolean", "True", True),
        ("boolean", "no", False),
        ("boolean", "1", True),
        ("boolean", "", None),
        ("boolean", "maybe", "maybe"),
        ("datetime", " 2026-01-02 03:04 ", "2026-01-02 03:04"),
        ("datetime", "NaT", None),
        ("date", "", None),
        ("date", "soon", "soon"),
        ("string", "NA", "NA"),
        ("string", "", None),
        ("string", " x ", " x "),
        ("category", "3", "3"),
    ],
)
def test_a_cell_is_read_as_its_features_kind_or_stays_text(kind, text, value):
    assert make_cell_reader(Feature(name="x", kind=kind))(text) == value


@pytest.mark.parametrize(
    ("categories", "text", "value"),
    [
        (("gold", "basic"), "gold", "gold"),
        (("gold", "basic"), "NA", None),
        (("gold", "NA"), "NA", "NA"),
        (("gold", "basic"), "silver", "silver"),
        ((1, 2), "2", 2),
        ((1, 2), "2.0", 2),
        ((1.0, 2.5), "1", 1.0),
        ((True, False), "true", True),
        ((True, False), "False", False),
        (("1", "2"), "1", "1"),
    ],
)
def test_a_category_is_found_by_its_text(categories, text, value):
    read = make_cell_reader(Feature(name="x", kind="category", categories=categories))(text)
    assert read == value
    assert type(read) is type(value)


def test_a_text_for_missing_is_missing_only_where_the_feature_is_nullable():
    for word in ("NA", "NaN", "null", "<NA>"):
        assert make_cell_reader(Feature(name="x", kind="string", nullable=True))(word) is None
        assert make_cell_reader(Feature(name="x", kind="string"))(word) == word
    assert make_cell_reader(Feature(name="x", kind="string", nullable=True))("Nancy") == "Nancy"


def test_features_are_found_by_name_and_other_columns_are_ignored():
    columns = match_columns(NAMED, ["id", "plan", "age", "note"])
    assert columns.instance(["x1", "gold", "41", "hello"]) == {"age": 41, "plan": "gold"}


def test_missing_columns_are_named_with_similar_names():
    with pytest.raises(InvalidInput, match="lacks 2 columns") as caught:
        match_columns(NAMED, ["Age", "plans", "id"])
    assert "'age' (did you mean 'Age'?)" in str(caught.value)
    assert "'plan' (did you mean 'plans'?)" in str(caught.value)


def test_two_columns_of_one_name_are_refused():
    with pytest.raises(InvalidInput, match="columns 1 and 3 are both named 'age'"):
        match_columns(NAMED, ["age", "plan", "age"])


def test_named_features_refuse_column_names():
    with pytest.raises(InvalidInput, match="--column is for models that take lists or texts"):
        match_columns(NAMED, ["age", "plan"], ["age"])


def test_the_columns_of_a_list_are_taken_in_order_and_nested_to_its_shape():
    image = contract(Array(shape=(2, 3), kind="integer"))
    columns = match_columns(image, ["a", "b", "c", "d", "e", "f"])
    assert columns.instance(list("123456")) == [[1, 2, 3], [4, 5, 6]]


def test_named_columns_of_a_list_are_sent_in_their_order():
    pair = contract(Array(shape=(2,)))
    assert match_columns(pair, ["id", "x", "y"], ["y", "x"]).instance(["a", "1", "2"]) == [2.0, 1.0]


def test_a_list_of_another_length_than_the_columns_is_refused():
    with pytest.raises(InvalidInput, match="takes 2 values a row, and the file has 3 columns"):
        match_columns(contract(Array(shape=(2,))), ["id", "x", "y"])


def test_a_csv_without_a_header_is_refused_and_numbered_columns_are_not():
    pair = contract(Array(shape=(2,)))
    with pytest.raises(InvalidInput, match="the first line holds values"):
        match_columns(pair, ["5.1", "3.5"])
    assert match_columns(pair, ["0", "1"]).instance(["5", "6"]) == [5.0, 6.0]


@pytest.mark.parametrize("header", [["text"], ["review"], ["id", "text"]])
def test_a_text_is_in_the_column_text_or_in_the_only_one(header):
    assert match_columns(contract(Text()), header).instance(["x"] * (len(header) - 1) + ["hi"]) == "hi"


def test_a_text_among_several_columns_must_be_named():
    with pytest.raises(InvalidInput, match="name the column with --column"):
        match_columns(contract(Text()), ["title", "body"])
    assert match_columns(contract(Text()), ["title", "body"], ["body"]).instance(["a", "b"]) == "b"
    with pytest.raises(InvalidInput, match="'bodi' \\(did you mean 'body'\\?\\)"):
        match_columns(contract(Text()), ["title", "body"], ["bodi"])


def test_a_file_may_lack_the_columns_of_optional_features_and_an_empty_cell_leaves_one_out():
    features = [Feature(name=name, kind="number", optional=True) for name in ("a", "b")]
    model = contract(Named(features=(*features, Feature(name="c", kind="number", nullable=True))))
    columns = match_columns(model, ["c", "id", "a"])
    assert columns.instance(["1", "x", "2"]) == {"a": 2.0, "c": 1.0}
    assert columns.instance(["", "x", ""]) == {"c": None}
    with pytest.raises(InvalidInput, match="lacks a column that churn@3 takes: 'c'"):
        match_columns(model, ["a", "b"])
    with pytest.raises(InvalidInput, match="lacks 2 columns that churn@3 takes: 'a', 'b'"):
        match_columns(contract(Named(features=tuple(features))), ["id"])


def test_a_csv_holds_no_lists_of_strings():
    with pytest.raises(InvalidInput, match="give a file of JSON lines, a list in each"):
        match_columns(contract(Tokens()), ["tokens"])
