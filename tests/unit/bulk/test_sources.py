"""A reference names a file, a folder or a glob, and each file's name says its format."""

from __future__ import annotations

from pathlib import Path

import pytest

from headrace.errors import InvalidInput
from headrace_worker.bulk.sources import FileForm, list_sources, name_chunk, read_form, read_partitions
from tests.support.bulk_files import make_locations, write_parquet


@pytest.mark.parametrize(
    ("reference", "names"),
    [
        ("in:", ["2026/01/a.parquet", "2026/02/b.parquet", "2026/02/c.parquet", "top.parquet"]),
        ("in:2026/02", ["2026/02/b.parquet", "2026/02/c.parquet"]),
        ("in:2026/02/", ["2026/02/b.parquet", "2026/02/c.parquet"]),
        ("in:2026/02/b.parquet", ["2026/02/b.parquet"]),
        ("in:*.parquet", ["top.parquet"]),
        ("in:2026/*/*.parquet", ["2026/01/a.parquet", "2026/02/b.parquet", "2026/02/c.parquet"]),
        ("in:2026/**/[a-b].parquet", ["2026/01/a.parquet", "2026/02/b.parquet"]),
        ("in:**/?.parquet", ["2026/01/a.parquet", "2026/02/b.parquet", "2026/02/c.parquet"]),
        ("in:2026/02/[!b].parquet", ["2026/02/c.parquet"]),
        ("in:2026/**", ["2026/01/a.parquet", "2026/02/b.parquet", "2026/02/c.parquet"]),
    ],
)
def test_files_are_listed_in_order_without_hidden_ones(tmp_path: Path, reference: str, names: list[str]) -> None:
    locations = make_locations(tmp_path)
    for name in (
        "2026/02/c",
        "2026/02/b",
        "2026/01/a",
        "top",
        "_headrace/x",
        ".hidden/x",
        "2026/_SUCCESS/x",
        "_x",
    ):
        write_parquet(tmp_path / "in" / f"{name}.parquet", 3)
    (tmp_path / "in" / "readme.txt").write_text("not a table")
    sources = list_sources(locations, reference)
    assert [source.reference for source in sources] == [f"in:{name}" for name in names]
    assert all(source.size == (tmp_path / "in" / source.reference[3:]).stat().st_size for source in sources)


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("in:missing.parquet", "no file or folder in:missing.parquet"),
        ("in:*.csv", "names no file"),
        ("in:readme.txt", "the ending of the name says no format"),
        ("in:*.txt", "the ending of the name says no format"),
        ("in:empty", "names no file"),
        ("in:a**/x.parquet", "stands alone"),
        ("in:" + "**/" * 60 + "x.parquet", "names no file"),
    ],
)
def test_a_reference_without_a_table_is_refused(tmp_path: Path, reference: str, message: str) -> None:
    locations = make_locations(tmp_path)
    (tmp_path / "in" / "empty").mkdir()
    (tmp_path / "in" / "readme.txt").write_text("not a table")
    with pytest.raises(InvalidInput, match=message):
        list_sources(locations, reference)


def test_a_glob_of_many_stars_is_matched_in_linear_time(tmp_path: Path) -> None:
    locations = make_locations(tmp_path)
    write_parquet(tmp_path / "in" / ("a" * 200 + ".parquet"), 1)
    with pytest.raises(InvalidInput, match="names no file"):
        list_sources(locations, "in:" + "*a" * 60 + "*b")


@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("in:a.parquet", FileForm("parquet", ending=".parquet")),
        ("in:A.PARQUET", FileForm("parquet", ending=".parquet")),
        ("in:a.b.csv", FileForm("csv", ending=".csv")),
        ("in:a.tsv.gz", FileForm("csv", "gzip", "\t", ".tsv.gz")),
        ("in:x/a.jsonl.zst", FileForm("jsonl", "zstd", ending=".jsonl.zst")),
    ],
)
def test_the_name_of_a_file_says_its_format(name: str, form: FileForm) -> None:
    assert read_form(name) == form


@pytest.mark.parametrize("name", ["in:a", "in:a.txt", "in:csv", "in:a.gz", "in:a.parquet.gz", "in:a.csv.bz2"])
def test_a_name_without_a_known_format_is_refused(name: str) -> None:
    with pytest.raises(InvalidInput, match="says no format"):
        read_form(name)


def test_a_part_has_the_format_of_its_source_or_the_one_that_is_named() -> None:
    assert name_chunk("out:scores", 17, "in:x/a.csv.gz") == "out:scores/part-00017.csv.gz"
    assert name_chunk("out:", 123456, "in:a.csv", ".parquet") == "out:part-123456.parquet"


def test_folders_of_a_path_set_columns_as_hive_names_them() -> None:
    reference = "in:x=1/country=de/city=S%C3%A3o%20Paulo/none=__HIVE_DEFAULT_PARTITION__/a=b.parquet"
    assert read_partitions(reference) == {"x": "1", "country": "de", "city": "São Paulo", "none": None}
