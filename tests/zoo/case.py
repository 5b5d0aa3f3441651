"""A case of the zoo: a fitted model and the typed table it was fitted on, and tables for many cases."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

#: Rows that a model is fitted on, rows it is packaged with, and rows that jobs ask for: these are in no package.
ROWS, PACKAGED, REQUESTED = 150, 60, 24


class Fitted(NamedTuple):
    """A fitted model with its table."""

    model: Any
    #: The table of ROWS rows, in any form that `package` takes.
    table: Any
    #: Options of `package`.
    options: dict[str, Any] = {}  # noqa: RUF012  # never changed


class Case(NamedTuple):
    """An entry of the zoo."""

    group: str
    name: str
    fit: Callable[[], Fitted]

    @property
    def title(self) -> str:
        """The group and the name, which no other case has."""
        return f"{self.group}: {self.name}"


def random() -> np.random.Generator:
    """Return the same random numbers for each case."""
    return np.random.default_rng(11)


def numbers(columns: int = 4) -> np.ndarray[Any, Any]:
    """Return a table of numbers around 0."""
    return random().normal(size=(ROWS, columns))


def positive() -> np.ndarray[Any, Any]:
    """Return a table of numbers from 0 to 1."""
    return random().uniform(size=(ROWS, 4))


def counts() -> np.ndarray[Any, Any]:
    """Return a table of small integers."""
    return random().integers(0, 5, size=(ROWS, 4))


def number_frame() -> pd.DataFrame:
    """Return a frame of numbers of several types."""
    generator = random()
    return pd.DataFrame(
        {
            "age": generator.integers(18, 90, ROWS),
            "income": generator.normal(40, 9, ROWS),
            "score": generator.normal(size=ROWS).astype(np.float32),
            "member": generator.random(ROWS) < 0.5,
        }
    )


def mixed_frame() -> pd.DataFrame:
    """Return a frame with a column of each common type, without missing values."""
    generator = random()
    frame = number_frame()
    return frame.assign(
        plan=generator.choice(["basic", "gold", "team"], ROWS),
        code=generator.integers(1, 6, ROWS),
        size=pd.Categorical(generator.choice(["s", "m", "l"], ROWS), categories=["s", "m", "l"], ordered=True),
    )


def gappy_frame() -> pd.DataFrame:
    """Return the mixed frame with missing values in each column that can have them in its own type."""
    frame = mixed_frame()
    for number, name in enumerate(["income", "score", "plan", "size"]):
        frame.loc[frame.index % 11 == number, name] = None
    return frame.assign(age=frame["age"].astype(float).mask(frame.index % 11 == 5))


def labels(table: Any) -> np.ndarray[Any, Any]:
    """Return three classes that depend on the first column of a table of numbers."""
    return np.digitize(_first_column(table), np.quantile(_first_column(table), [0.4, 0.7]))


def targets(table: Any) -> np.ndarray[Any, Any]:
    """Return numbers that depend on the first column of a table of numbers."""
    column = _first_column(table)
    return np.asarray(column * 2.0 + np.sin(column))


def _first_column(table: Any) -> np.ndarray[Any, Any]:
    column = table.iloc[:, 0] if hasattr(table, "iloc") else np.asarray(table)[:, 0]
    return np.nan_to_num(np.asarray(column, dtype=float))
