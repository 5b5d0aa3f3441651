"""Models of objects that lack keys, and of lists of tokens, in a module that workers can import."""

from __future__ import annotations

from typing import Any

from sklearn.feature_extraction import DictVectorizer
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline

ROWS: list[dict[str, Any]] = [{"area": 40.5, "city": "Oslo"}, {"area": 70}, {"city": "Rome", "floor": 3}, {}] * 5
TOKENS = [["rain", "and", "wind"], ["sun"], ["warm", "New York"], ["rain", "New York", "snow", "rain"]] * 5
_WEATHER = ["wet", "dry", "dry", "wet"] * 5


def keep_tokens(tokens: list[str]) -> list[str]:
    return tokens


def fit_objects() -> Pipeline:
    return make_pipeline(DictVectorizer(), LogisticRegression()).fit(ROWS, _WEATHER)


def fit_tokens(analyzer: Any = keep_tokens) -> Pipeline:
    return make_pipeline(TfidfVectorizer(analyzer=analyzer), LogisticRegression()).fit(TOKENS, _WEATHER)
