"""Bulk files in S3: a local server, which also fails, cuts and changes objects."""

from __future__ import annotations

from pathlib import Path

import fsspec
import pytest

from headrace.errors import InvalidInput, SettingError, TransientError
from headrace.wire.bulk import ChunkStep
from headrace_worker.bulk.locations import Locations
from headrace_worker.bulk.ownership import claim_output
from headrace_worker.bulk.part import open_part
from headrace_worker.bulk.read import read_piece
from headrace_worker.bulk.receipts import find_receipt
from headrace_worker.bulk.sources import list_sources
from tests.support.bulk_files import SCHEMA, files_of, make_locations, plan, predict, write_parquet
from tests.support.s3_server import BUCKET, S3, s3, s3_of_module

__all__ = ["s3", "s3_of_module"]


@pytest.fixture
def locations(s3: S3) -> Locations:
    return Locations(f"in=s3://{BUCKET}/lake:r,out=s3://{BUCKET}/scores:w")


@pytest.fixture
def bucket(s3: S3) -> fsspec.AbstractFileSystem:
    return fsspec.filesystem("s3", use_listings_cache=False, skip_instance_cache=True)


def upload(bucket: fsspec.AbstractFileSystem, folder: Path) -> None:
    for name, data in files_of(folder).items():
        bucket.pipe_file(f"{BUCKET}/lake/{name}", data)


def objects(bucket: fsspec.AbstractFileSystem) -> dict[str, bytes]:
    """Return the bytes of all objects of the output, by name."""
    names = bucket.find(f"{BUCKET}/scores")
    return {name.removeprefix(f"{BUCKET}/scores/"): bucket.cat_file(name) for name in names}


def write_inputs(tmp_path: Path) -> None:
    make_locations(tmp_path)
    write_parquet(tmp_path / "in" / "day=1" / "a.parquet", 300)
    text = "a,b,id\n" + "".join(f"{number},x,{number}\n" for number in range(300))
    (tmp_path / "in" / "b.csv").write_text(text)
    (tmp_path / "in" / "c.jsonl").write_text('{"a":1,"b":"x"}\n' * 50)
    (tmp_path / "in" / "_ignored.csv").write_text("x")


def test_a_run_in_s3_writes_the_bytes_that_it_writes_in_a_folder(
    tmp_path: Path, locations: Locations, bucket: fsspec.AbstractFileSystem
) -> None:
    write_inputs(tmp_path)
    upload(bucket, tmp_path / "in")
    local = make_locations(tmp_path)
    assert [source.reference for source in list_sources(locations, "in:")] == [
        "in:b.csv",
        "in:c.jsonl",
        "in:day=1/a.parquet",
    ]
    assert [source.reference for source in list_sources(locations, "in:*/*.parquet")] == ["in:day=1/a.parquet"]
    for where in (locations, local):
        for step in plan(where, "in:", "out:run"):
            assert find_receipt(where, step) is None
            receipt = predict(where, step, bad=frozenset([7.0]))
            assert find_receipt(where, step) == receipt
    in_s3, in_folder = objects(bucket), files_of(tmp_path / "out")
    assert sorted(in_s3) == sorted(in_folder)
    # Receipts hold the etag of the object, or the time of the file.
    names = [name for name in in_s3 if name.endswith((".csv", ".jsonl"))]
    assert len(names) == 4
    assert [in_s3[name] for name in names] == [in_folder[name] for name in names]


def test_an_object_that_changed_is_refused(
    tmp_path: Path, locations: Locations, bucket: fsspec.AbstractFileSystem
) -> None:
    write_inputs(tmp_path)
    upload(bucket, tmp_path / "in")
    steps = plan(locations, "in:b.csv", "out:run")
    same_size = (tmp_path / "in" / "b.csv").read_bytes().replace(b",x,", b",y,")

    def change_in_the_middle() -> None:
        with open_part(locations, steps[0]) as writer:
            for piece in read_piece(locations, steps[0], SCHEMA):
                writer.write(piece, piece.rows.column("a"), {})
                bucket.pipe_file(f"{BUCKET}/lake/b.csv", same_size)

    with pytest.raises(InvalidInput, match="has changed"):
        change_in_the_middle()
    with pytest.raises(InvalidInput, match=r"in:b.csv has changed since the run was planned"):
        predict(locations, steps[1])
    assert list(objects(bucket)) == ["run/_headrace/run.json"]


def test_a_server_that_is_away_is_an_error_that_may_pass_and_leaves_nothing(
    tmp_path: Path, s3: S3, locations: Locations, bucket: fsspec.AbstractFileSystem
) -> None:
    write_inputs(tmp_path)
    upload(bucket, tmp_path / "in")
    [step, *_] = plan(locations, "in:day=1/a.parquet", "out:run")

    def lose_the_server_before_the_upload() -> None:
        with open_part(locations, step) as writer:
            for piece in read_piece(locations, step, SCHEMA):
                writer.write(piece, piece.rows.column("a"), {})
            s3.stop()

    with pytest.raises(TransientError, match=r"out:run/part-00000.parquet is unavailable"):
        lose_the_server_before_the_upload()
    with pytest.raises(TransientError, match="is unavailable"):
        predict(locations, step)
    with pytest.raises(TransientError, match="in: is unavailable"):
        list_sources(locations, "in:")
    s3.start()
    assert list(objects(bucket)) == ["run/_headrace/run.json"]
    assert predict(locations, step).rows == 100


def test_a_server_that_fails_while_rows_are_read_is_an_error_that_may_pass(
    tmp_path: Path,
    s3: S3,
    locations: Locations,
    bucket: fsspec.AbstractFileSystem,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("headrace_worker.bulk.object_store._BLOCK_BYTES", 1000)
    monkeypatch.setattr("headrace_worker.bulk.text_file.BLOCK_BYTES", 1000)
    write_inputs(tmp_path)
    upload(bucket, tmp_path / "in")
    for reference in ("in:b.csv", "in:day=1/a.parquet"):
        [step] = plan(locations, reference, f"out:{reference[3]}", rows=1000)

        def read_until_the_server_is_gone(step: ChunkStep = step) -> None:
            for _ in read_piece(locations, step, SCHEMA):
                s3.stop()

        with pytest.raises(TransientError, match="is unavailable"):
            read_until_the_server_is_gone()
        s3.start()


def test_a_folder_of_outputs_in_s3_belongs_to_one_run(locations: Locations) -> None:
    claim_output(locations, "out:nightly", "first")
    claim_output(locations, "out:nightly", "first")
    with pytest.raises(InvalidInput, match="the output of the run 'first'"):
        claim_output(locations, "out:nightly/inner", "second")
    with pytest.raises(InvalidInput, match="the output of the run 'first'"):
        claim_output(locations, "out:nightly", "second")


def test_a_bucket_or_object_that_does_not_exist_is_named(s3: S3) -> None:
    locations = Locations(f"in=s3://{BUCKET}/lake:r,none=s3://nowhere/x:rw")
    for reference in ("in:missing.csv", "none:a.csv"):
        with pytest.raises(InvalidInput, match=f"there is no file or folder {reference}"):
            list_sources(locations, reference)


def test_a_location_in_another_kind_of_storage_needs_its_package() -> None:
    with pytest.raises(SettingError, match="the location 'in' cannot be used"):
        list_sources(Locations("in=nosuch://bucket/x:r"), "in:")
