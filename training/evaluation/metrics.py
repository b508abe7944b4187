"""Precision, recall and F1 of multi-label decisions, and how sure a score is. Labels and decisions are [rows, labels]."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.generic]
FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class LabelScores:
    """Scores by label, each [labels]."""

    precision: FloatArray
    recall: FloatArray
    f1: FloatArray
    support: FloatArray


def f1_of_counts(hits: Array | float, *, predicted: Array | float, support: Array | float) -> FloatArray:
    """Return 2·hits / (predicted + support); 0 where both are 0."""
    total = np.asarray(predicted, float) + np.asarray(support, float)
    return np.asarray(2.0 * np.asarray(hits, float) / np.maximum(total, 1e-12), float)


def label_scores(labels: Array, predicted: Array) -> LabelScores:
    """Return precision, recall, F1 and support of every label; 0 where a ratio has no rows."""
    truth, said = labels.astype(bool), predicted.astype(bool)
    hits = (truth & said).sum(0).astype(float)
    support, chosen = truth.sum(0).astype(float), said.sum(0).astype(float)
    return LabelScores(
        precision=hits / np.maximum(chosen, 1.0),
        recall=hits / np.maximum(support, 1.0),
        f1=f1_of_counts(hits, predicted=chosen, support=support),
        support=support,
    )


def macro_f1(labels: Array, predicted: Array) -> float:
    """Return the mean of the labels' F1."""
    return float(label_scores(labels, predicted).f1.mean())


def micro_f1(labels: Array, predicted: Array) -> float:
    """Return the F1 of all cells together."""
    truth, said = labels.astype(bool), predicted.astype(bool)
    return float(f1_of_counts((truth & said).sum(), predicted=said.sum(), support=truth.sum()))


def weighted_f1(labels: Array, predicted: Array) -> float:
    """Return the labels' F1 averaged by support."""
    scores = label_scores(labels, predicted)
    return float((scores.f1 * scores.support).sum() / max(1.0, scores.support.sum()))


def averages(labels: Array, predicted: Array) -> dict[str, dict[str, float]]:
    """Return precision, recall and F1 averaged over labels, over all cells together, and over labels by support."""
    scores = label_scores(labels, predicted)
    weights = {"macro": np.ones(len(scores.support)), "weighted": scores.support}
    averaged = {
        name: {
            each: round(float((getattr(scores, each) * weight).sum() / max(1.0, weight.sum())), 4)
            for each in ("precision", "recall", "f1")
        }
        for name, weight in weights.items()
    }
    truth, said = labels.astype(bool), predicted.astype(bool)
    hits = float((truth & said).sum())
    averaged["micro"] = {
        "precision": round(hits / max(1.0, float(said.sum())), 4),
        "recall": round(hits / max(1.0, float(truth.sum())), 4),
        "f1": round(micro_f1(labels, predicted), 4),
    }
    return averaged


def summary(labels: Array, predicted: Array) -> dict[str, float]:
    """Return macro, micro and weighted F1 and the share of rows whose labels are all right."""
    exact = (labels.astype(bool) == predicted.astype(bool)).all(1).mean()
    return {
        "macro_f1": round(macro_f1(labels, predicted), 4),
        "micro_f1": round(micro_f1(labels, predicted), 4),
        "weighted_f1": round(weighted_f1(labels, predicted), 4),
        "exact_rows": round(float(exact), 4),
    }


def bootstrap_interval(
    labels: Array, predicted: Array, *, score: Callable[[Array, Array], float], seed: int, draws: int = 1000
) -> tuple[float, float]:
    """Return the 2.5 and 97.5 percentiles of a score over rows drawn anew with replacement (Efron 1979)."""
    chance = np.random.default_rng(seed)
    rows = len(labels)
    scores = [score(labels[drawn], predicted[drawn]) for drawn in (chance.integers(0, rows, rows) for _ in range(draws))]
    low, high = np.percentile(scores, [2.5, 97.5])
    return round(float(low), 4), round(float(high), 4)
