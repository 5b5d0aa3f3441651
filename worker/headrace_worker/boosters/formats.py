"""Tell the files of the libraries of boosters apart by their first bytes, and those that nothing can load."""

from __future__ import annotations

import re
from typing import TypeGuard, get_args

from headrace_worker.manifest import BoosterFormat, Format

#: The first bytes of each library's files. XGBoost writes JSON, or the same in binary: UBJSON.
_STARTS: dict[BoosterFormat, re.Pattern[bytes]] = {
    "lightgbm": re.compile(rb"tree\r?\n"),
    "catboost": re.compile(rb"CBM1"),
    "xgboost": re.compile(rb'\s*\{\s*"(?:learner|version)"|\{[iIlL][\0-\xff]{1,8}?(?:learner|version)'),
}
#: The first bytes of files that a library writes and does not load, or no longer, and what to do instead.
_UNUSABLE: dict[re.Pattern[bytes], str] = {
    re.compile(rb'\s*\{\s*"(?:ctr_data|features_info|model_info|oblivious_trees|scale_and_bias|trees)"\s*:'): (
        "is CatBoost's JSON, which holds less than the model; save it in CatBoost's own format: "
        '`model.save_model("model.cbm")`'
    ),
    re.compile(rb"binf|bs64\t"): (
        "is in XGBoost's binary format, which was removed in XGBoost 3.1; load it with the XGBoost that wrote it, "
        'and save it again as .ubj or .json: `booster.save_model("model.ubj")`'
    ),
    re.compile(rb'\s*\[\s*\{\s*"nodeid"|booster\[0\]:\r?\n'): (
        "is a dump of XGBoost's trees for people, which XGBoost does not load; save the model itself: "
        '`booster.save_model("model.ubj")`'
    ),
    re.compile(rb'\s*\{\s*"name"\s*:\s*"tree"'): (
        "is a dump of LightGBM's trees for people, which LightGBM does not load; save the model itself: "
        '`booster.save_model("model.txt")`'
    ),
}


def is_booster_format(form: Format) -> TypeGuard[BoosterFormat]:
    """Decide whether artifacts of this format are files of a library of boosters."""
    return form in get_args(BoosterFormat)


def detect_format(data: bytes) -> BoosterFormat | None:
    """Detect the library that wrote a file, by its first bytes; None for a file of something else."""
    return next((form for form, start in _STARTS.items() if start.match(data)), None)


def explain_unusable(data: bytes) -> str:
    """Return what a file of these libraries is that none of them loads, and what to do; empty for another file."""
    return next((reason for start, reason in _UNUSABLE.items() if start.match(data)), "")
