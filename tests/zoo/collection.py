"""All cases of the zoo, those that must be refused, and the few that `make test` runs."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.zoo import answers, boosters, scikit_learn, tables, texts
from tests.zoo.case import Case
from tests.zoo.serving import Outcome, run_cases

#: What the sentence of a refusal contains, by the titles of the cases that must be refused.
REFUSALS: dict[str, str] = {
    **{
        f"scikit-learn: clusterers: {name}": "fit a classifier on its `labels_`"
        for name in ("AgglomerativeClustering", "DBSCAN", "HDBSCAN", "OPTICS", "SpectralClustering")
    },
    **{
        f"scikit-learn: transformers and others: {name}": "package the estimator that predicts from its results"
        for name in (
            *("EmpiricalCovariance", "GraphicalLasso", "GraphicalLassoCV", "LedoitWolf", "MDS", "MinCovDet"),
            *("NearestNeighbors", "OAS", "ShrunkCovariance", "SpectralBiclustering", "SpectralCoclustering"),
            *("SpectralEmbedding", "TSNE"),
        )
    },
    "scikit-learn: clusterers: Birch": "trust_pickle=True",
    "scikit-learn: transformers and others: BernoulliRBM": "--alone",
    "scikit-learn: transformers and others: MiniBatchNMF": "--alone",
    "scikit-learn: transformers and others: MiniBatchSparsePCA": "repeats a single row",
    "scikit-learn: transformers and others: SparsePCA": "repeats a single row",
    "scikit-learn: classifiers: TunedThresholdClassifierCV": "trust_pickle=True",
    "meta-estimators: calibrated, temperature": "trust_pickle=True",
    "meta-estimators: tuned threshold": "trust_pickle=True",
    "meta-estimators: tuned threshold for texts": "trust_pickle=True",
    "frames: codes of categories by batch": "--alone",
    "frames: dummies by batch": "--alone",
    "frames: durations": "convert the column",
}

#: The titles of about twelve cases of the most different kinds.
SHORT: tuple[str, ...] = (
    "scikit-learn: classifiers: GaussianNB",
    "scikit-learn: regressors: IsotonicRegression",
    "scikit-learn: clusterers: DBSCAN",
    "scikit-learn: outlier detectors: IsolationForest",
    "scikit-learn: transformers and others: OneHotEncoder",
    "frames: columns selected by type",
    "frames: ordinal encoder",
    "frames: integers as texts",
    "frames: codes of categories by batch",
    "frames: dates in a zone",
    "texts and objects: TfidfVectorizer, linear",
    "labels and several outputs: labels: bytes",
    "labels and several outputs: several labels of texts",
    "boosters: LGBMClassifier, categories",
)


def all_cases() -> Iterator[Case]:
    """Yield every case."""
    for module in (scikit_learn, tables, answers, texts, boosters):
        yield from module.cases()


def run_titles(titles: Sequence[str]) -> list[Outcome]:
    """Run the cases with these titles, by a worker of their own."""
    cases = [case for case in all_cases() if case.title in titles]
    outcomes = []
    with tempfile.TemporaryDirectory() as folder:
        for outcome in run_cases(cases, Path(folder)):
            print(f"{outcome.verdict:8} {outcome.title}", flush=True)
            outcomes.append(outcome)
    return outcomes


def is_unexpected(outcome: Outcome) -> bool:
    """Decide whether an outcome is a fault: a wrong answer, or a refusal that is not expected."""
    if outcome.verdict == "equal":
        return False
    expected = REFUSALS.get(outcome.title)
    return outcome.verdict == "wrong" or expected is None or expected not in outcome.text
