"""The programs of docs/how-to/predict-in-an-engine.md, and a folder with what they read."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from tests.support import ROOT
from tests.support.customers import add_fingerprint, customers

PAGE = (ROOT / "docs" / "how-to" / "predict-in-an-engine.md").read_text()
#: By the name in their first line.
PROGRAMS: dict[str, str] = dict(re.findall(r"^```python\n# (\w+\.py)\n(.*?)^```", PAGE, re.M | re.S))
#: The rows of the table, and the files that hold them.
ROWS, FILES = 3_000, 3


def make_folder(folder: Path) -> tuple[pd.DataFrame, dict[str, str]]:
    """Write the table and the store into a folder. Return the table, and the environment of the programs."""
    table = customers(ROWS, seed=8)
    add_fingerprint(folder / "models")
    (folder / "customers").mkdir()
    step = ROWS // FILES
    for number in range(FILES):
        piece = pa.Table.from_pandas(table.iloc[number * step : (number + 1) * step], preserve_index=False)
        # Not every engine reads dictionaries.
        piece = piece.set_column(piece.column_names.index("plan"), "plan", piece.column("plan").cast(pa.string()))
        pq.write_table(piece.replace_schema_metadata(), folder / "customers" / f"{number}.parquet")
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("HEADRACE_", "REDIS_"))}
    environ |= {"HEADRACE_MODELS": str(folder / "models"), "HEADRACE_TRUST_PICKLE": "true"}
    return table, {**environ, "PYTHONPATH": str(ROOT)}  # the module of the model


def read_scores(folder: Path) -> pd.DataFrame:
    """Return the scores that a program has written, in the order of the customers."""
    files = sorted([*folder.glob("scores.parquet"), *folder.glob("scores/*.parquet")])
    scores = pd.concat([pq.read_table(file, partitioning=None).to_pandas() for file in files])
    return scores.sort_values("customer", ignore_index=True)
