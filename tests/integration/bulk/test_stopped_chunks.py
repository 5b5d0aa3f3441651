"""A chunk ends when its run is stopped, and asks Redis rarely whether it was."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from headrace.wire.bulk import ChunkStep, Receipt
from headrace_worker.bulk.chunk_job import StoppedError, run_chunk
from headrace_worker.bulk.limits import SLICE_ROWS
from headrace_worker.bulk.locations import Locations
from headrace_worker.models.loader import load
from headrace_worker.store.store import Store
from tests.support.bulk_site import COLUMNS, add_bulk_model

SLICES = 5


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., Receipt]:
    """Return a function that runs a chunk of several slices into `out`."""
    for name in ("in", "out"):
        (tmp_path / name).mkdir()
    zeros = np.zeros(SLICES * SLICE_ROWS)
    parquet.write_table(pa.table(dict.fromkeys(COLUMNS, zeros)), tmp_path / "in" / "rows.parquet")
    model = load(Store(add_bulk_model(tmp_path)), "doubling", "1", trust_pickle=True)
    locations = Locations(f"in={tmp_path / 'in'}:r,out={tmp_path / 'out'}:w")
    return partial(run_chunk, model, ChunkStep(input="in:rows.parquet", output="out:a/part-0.parquet"), locations)


def test_slices_that_follow_each_other_quickly_share_one_look(run: Callable[..., Receipt]) -> None:
    looks: list[None] = []
    receipt = run(is_stopped=lambda: looks.append(None) or False)
    assert receipt.rows == SLICES * SLICE_ROWS
    assert len(looks) < SLICES


def test_a_stopped_chunk_leaves_no_part(run: Callable[..., Receipt], tmp_path: Path) -> None:
    with pytest.raises(StoppedError):
        run(is_stopped=lambda: True)
    assert not [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
