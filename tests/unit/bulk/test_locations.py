"""References name files below a location, and nothing else."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from headrace.errors import InvalidInput, SettingError
from headrace_worker.bulk.locations import Locations
from headrace_worker.bulk.sources import list_sources
from tests.support.bulk_files import make_locations, write_parquet


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("in", "lacks its name, its folder"),
        ("in=/srv", "lacks its name, its folder, or its mode"),
        ("/srv:r,s3://me:secret@lake:r", "'/srv:r' lacks its name"),
        ("in=/srv:x", "lacks its name, its folder, or its mode"),
        ("in=srv:r", "absolute path"),
        ("In=/srv:r", "the name 'In'"),
        ("in=/srv:r,in=/data:r", "twice"),
    ],
)
def test_a_wrong_setting_is_refused_with_its_name(setting: str, message: str) -> None:
    with pytest.raises(SettingError, match=f"HEADRACE_LOCATIONS.*{message}"):
        Locations(setting)


@pytest.mark.parametrize(
    "setting", ["s3://me:secret@lake/in:r", "s3://me:secret@lake/a=b:r", "in=/srv:r,x:secret@h:r"]
)
def test_a_url_without_a_name_is_refused_without_its_password(setting: str) -> None:
    with pytest.raises(SettingError, match=r"location \d") as caught:
        Locations(setting)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("in:../secret.parquet", r"'\.\.'"),
        ("in:a/../../secret.parquet", r"'\.\.'"),
        ("in:..", r"'\.\.'"),
        ("in:./a.parquet", r"'\.'"),
        ("in:a//b.parquet", "empty"),
        ("in:/etc/passwd", "absolute path"),
        ("/etc/passwd", "no reference"),
        ("s3://bucket/a.parquet", "URL or an absolute path"),
        ("file:///etc/passwd", "URL or an absolute path"),
        ("in:a\\..\\b.parquet", "backslash"),
        ("in:a\x00.parquet", "control character"),
        ("in:a\nb.parquet", "control character"),
        ("in:" + "a" * 256, "longer than 255 bytes"),
        ("in:" + "/".join(["a" * 100] * 11), "longer than 1024"),
        ("", "no reference"),
        ("a.parquet", "no reference"),
        ("other:a.parquet", "no location 'other'"),
        ("out:a.parquet", "for writing only"),
    ],
)
def test_a_reference_that_could_lead_out_of_its_location_is_refused(
    tmp_path: Path, reference: str, message: str
) -> None:
    locations = make_locations(tmp_path)
    with pytest.raises(InvalidInput, match=message):
        locations.resolve(reference)
    with pytest.raises(InvalidInput, match=message):
        list_sources(locations, reference)


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("in:part-00000.parquet", "for reading only"),
        ("out:run/_headrace/run.json", "Headrace's own"),
        ("out:run/.part.parquet", "Headrace's own"),
        ("out:../run/part-00000.parquet", r"'\.\.'"),
    ],
)
def test_a_reference_is_not_written_where_it_may_not_be(tmp_path: Path, reference: str, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        make_locations(tmp_path).resolve(reference, for_writing=True)


@pytest.mark.parametrize("link", ["file", "folder"])
def test_no_symbolic_link_below_a_location_is_followed(tmp_path: Path, link: str) -> None:
    locations = make_locations(tmp_path)
    write_parquet(tmp_path / "secret" / "a.parquet", 3)
    if link == "file":
        (tmp_path / "in" / "a.parquet").symlink_to(tmp_path / "secret" / "a.parquet")
        reference = "in:a.parquet"
    else:
        (tmp_path / "in" / "data").symlink_to(tmp_path / "secret")
        reference = "in:data/a.parquet"
    file = locations.resolve(reference)
    with pytest.raises(InvalidInput, match="symbolic link"), file.storage.open(file.path):
        pass
    with pytest.raises(InvalidInput, match="symbolic link"):
        list_sources(locations, reference)
    with pytest.raises(InvalidInput, match="symbolic link"):
        list_sources(locations, "in:")
    (tmp_path / "out" / "run").symlink_to(tmp_path / "secret")
    output = locations.resolve("out:run/part-00000.parquet", for_writing=True)
    with pytest.raises(InvalidInput, match="symbolic link"), output.storage.write(output.path) as sink:
        sink.write(b"overwritten")
    assert sorted(path.name for path in (tmp_path / "secret").iterdir()) == ["a.parquet"]


def test_a_link_that_is_swapped_in_after_the_check_is_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    locations = make_locations(tmp_path)
    write_parquet(tmp_path / "in" / "data" / "a.parquet", 3)
    write_parquet(tmp_path / "secret" / "a.parquet", 5)
    file = locations.resolve("in:data/a.parquet")
    opened_names: list[str] = []
    open_file = os.open

    def swap_then_open(name: str, *args: object, **options: object) -> int:
        opened_names.append(name)
        if name == "data":  # the moment before the folder is opened
            (tmp_path / "in" / "data").rename(tmp_path / "in" / "moved")
            (tmp_path / "in" / "data").symlink_to(tmp_path / "secret")
        return open_file(name, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "open", swap_then_open)
    with pytest.raises(InvalidInput, match="symbolic link"), file.storage.open(file.path):
        pass
    assert "data" in opened_names


def test_folders_that_loop_are_refused(tmp_path: Path) -> None:
    locations = make_locations(tmp_path)
    folder = tmp_path / "in"
    for _ in range(40):
        folder /= "again"
    write_parquet(folder / "a.parquet", 1)
    with pytest.raises(InvalidInput, match="32 folders deep; do folders loop"):
        list_sources(locations, "in:")


def test_a_named_pipe_is_refused_at_once(tmp_path: Path) -> None:
    locations = make_locations(tmp_path)
    os.mkfifo(tmp_path / "in" / "a.parquet")
    file = locations.resolve("in:a.parquet")
    with pytest.raises(InvalidInput, match="a pipe, a device or a socket"), file.storage.open(file.path):
        pass


def test_a_location_itself_may_be_a_link(tmp_path: Path) -> None:
    write_parquet(tmp_path / "data" / "a.parquet", 3)
    (tmp_path / "link").symlink_to(tmp_path / "data")
    sources = list_sources(Locations(f"in={tmp_path}/link:r"), "in:")
    assert [source.reference for source in sources] == ["in:a.parquet"]
