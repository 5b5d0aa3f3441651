"""Models of texts, and of objects with any keys."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd
from sklearn.compose import make_column_transformer
from sklearn.decomposition import LatentDirichletAllocation, TruncatedSVD
from sklearn.feature_extraction import DictVectorizer, FeatureHasher
from sklearn.feature_extraction.text import CountVectorizer, HashingVectorizer, TfidfVectorizer
from sklearn.linear_model import LogisticRegression, SGDClassifier
from sklearn.naive_bayes import ComplementNB, MultinomialNB
from sklearn.pipeline import make_pipeline, make_union
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from tests.zoo.case import ROWS, Case, Fitted, random

_WORDS = np.array(
    ["rain", "sun", "wind", "sand", "snow", "Straße", "雪", "warm", "cold", "dry", "it's", "e-mail", "1.5"]
)


def cases() -> Iterator[Case]:
    """Yield the cases."""
    for name, fit in _FITS.items():
        yield Case(group="texts and objects", name=name, fit=fit)


def split_at_spaces(text: str) -> list[str]:
    """Return the words of a text."""
    return text.split()


def _texts() -> list[str]:
    generator = random()
    return [" ".join(generator.choice(_WORDS, generator.integers(1, 9))) for _ in range(ROWS)]


def _target() -> list[str]:
    return ["wet" if "rain" in text or "snow" in text else "dry" for text in _texts()]


def _fit(*steps: Any, table: Any = None, **options: Any) -> Fitted:
    table = _texts() if table is None else table
    return Fitted(make_pipeline(*steps).fit(table, _target()), table, options)


def _objects(*, gaps: bool) -> list[dict[str, Any]]:
    generator = random()
    rows = [
        {
            "city": str(generator.choice(["Oslo", "Rome", "Bern"])),
            "floor": int(generator.integers(0, 9)),
            "area": float(area),
        }
        for area in generator.normal(70, 20, ROWS)
    ]
    if gaps:
        for number, row in enumerate(rows):
            row.pop(["city", "floor", "area"][number % 3])
    return rows


def _frame() -> pd.DataFrame:
    return pd.DataFrame({"words": _texts(), "length": [len(text) for text in _texts()]})


_FITS: dict[str, Callable[[], Fitted]] = {
    "TfidfVectorizer, linear": lambda: _fit(TfidfVectorizer(), LogisticRegression()),
    "TfidfVectorizer of characters, LinearSVC": lambda: _fit(
        TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 3)), LinearSVC()
    ),
    "CountVectorizer, MultinomialNB": lambda: _fit(CountVectorizer(ngram_range=(1, 2)), MultinomialNB()),
    "CountVectorizer, binary, ComplementNB": lambda: _fit(CountVectorizer(binary=True), ComplementNB()),
    "HashingVectorizer, SGDClassifier": lambda: _fit(
        HashingVectorizer(n_features=256), SGDClassifier(loss="log_loss", random_state=0)
    ),
    "TfidfVectorizer, TruncatedSVD": lambda: _fit(TfidfVectorizer(), TruncatedSVD(3), LogisticRegression()),
    "CountVectorizer, topics": lambda: _fit(CountVectorizer(), LatentDirichletAllocation(3, random_state=0)),
    "union of vectorizers": lambda: _fit(
        make_union(CountVectorizer(), TfidfVectorizer(analyzer="char")), LogisticRegression(max_iter=500)
    ),
    "TfidfVectorizer alone": lambda: _fit(TfidfVectorizer()),
    "HashingVectorizer alone": lambda: _fit(HashingVectorizer(n_features=16)),
    "own tokenizer": lambda: _fit(
        TfidfVectorizer(tokenizer=split_at_spaces, token_pattern=None), LogisticRegression(), trust_pickle=True
    ),
    "Series of texts": lambda: _fit(TfidfVectorizer(), LogisticRegression(), table=pd.Series(_texts())),
    "array of texts": lambda: _fit(
        TfidfVectorizer(), LogisticRegression(), table=np.array(_texts(), dtype=object)
    ),
    "text beside a number": lambda: _fit(
        make_column_transformer((TfidfVectorizer(), "words"), (StandardScaler(), ["length"])),
        LogisticRegression(),
        table=_frame(),
    ),
    "DictVectorizer": lambda: _fit(
        DictVectorizer(), LogisticRegression(max_iter=2_000), table=_objects(gaps=False)
    ),
    "DictVectorizer, absent keys": lambda: _fit(
        DictVectorizer(), LogisticRegression(max_iter=2_000), table=_objects(gaps=True)
    ),
    "DictVectorizer alone": lambda: _fit(DictVectorizer(), table=_objects(gaps=False)),
    "FeatureHasher of objects": lambda: _fit(
        FeatureHasher(64), LogisticRegression(max_iter=2_000), table=_objects(gaps=False)
    ),
    "FeatureHasher of lists of tokens": lambda: _fit(
        FeatureHasher(64, input_type="string"), LogisticRegression(), table=[text.split() for text in _texts()]
    ),
    "lists of tokens": lambda: _fit(
        CountVectorizer(analyzer=list_of_tokens),
        LogisticRegression(),
        table=[text.split() for text in _texts()],
        trust_pickle=True,
    ),
}


def list_of_tokens(tokens: Any) -> Any:
    """Return the tokens as they are."""
    return tokens
