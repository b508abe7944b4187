"""One decision threshold a label, by F1 on saved validation logits, held toward a shared one where rows are few.

Probabilities are the worker's own (`worker.core.scoring`, four decimals) and a label holds at or above its threshold, so
that what is chosen here is what the worker does.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from training.evaluation.metrics import f1_of_counts, macro_f1

Array = npt.NDArray[np.floating]
GRID = np.arange(1, 100) / 100
SHRINKAGES = (0.0, 5.0, 15.0, 40.0, 100.0)
DECIMALS = 3


@dataclass(frozen=True, slots=True)
class ThresholdChoice:
    """Thresholds in label order, and what cross-validation on the same rows expects of them.

    `expected` maps "0.5", "shared" and each shrinkage to the macro-F1 of held-out folds; `shrinkage` is the one used.
    """

    thresholds: npt.NDArray[np.float64]
    shared: float
    shrinkage: float
    expected: dict[str, float]


def best_thresholds(probabilities: Array, labels: Array) -> npt.NDArray[np.float64]:
    """Return for each label the grid's threshold with the highest F1; the middle one where several tie.

    Args:
        probabilities: [rows, labels].
        labels: multi-hot, [rows, labels].
    """
    curves = _f1_curves(probabilities, labels)
    return np.array([np.median(GRID[curve >= curve.max() - 1e-12]) for curve in curves])


def best_shared_threshold(probabilities: Array, labels: Array) -> float:
    """Return the grid's threshold with the highest macro-F1 when all labels use it."""
    return float(GRID[_f1_curves(probabilities, labels).mean(0).argmax()])


def shrunk_thresholds(probabilities: Array, labels: Array, *, shrinkage: float, min_support: int) -> npt.NDArray[np.float64]:
    """Return thresholds (support · own + shrinkage · shared) / (support + shrinkage), by label.

    `shrinkage` counts pseudo-rows that vote for the shared threshold. A label with fewer than `min_support` rows takes the
    shared one: its own F1 curve is mostly chance.
    """
    own = best_thresholds(probabilities, labels)
    shared = best_shared_threshold(probabilities, labels)
    support = labels.sum(0).astype(np.float64)
    weight = np.where(support < min_support, 0.0, support / np.maximum(support + shrinkage, 1e-9))
    held: npt.NDArray[np.float64] = np.clip(weight * own + (1 - weight) * shared, GRID[0], GRID[-1])
    return np.round(held, DECIMALS)


def choose_thresholds(
    probabilities: Array, labels: Array, *, shrinkage: float | None, min_support: int, folds: int, seed: int
) -> ThresholdChoice:
    """Choose thresholds; where `shrinkage` is None, the one of `SHRINKAGES` with the best held-out macro-F1."""
    expected = expected_gains(probabilities, labels, min_support=min_support, folds=folds, seed=seed)
    if shrinkage is None:
        shrinkage = max(SHRINKAGES, key=lambda each: expected[_name(each)])
    return ThresholdChoice(
        thresholds=shrunk_thresholds(probabilities, labels, shrinkage=shrinkage, min_support=min_support),
        shared=best_shared_threshold(probabilities, labels),
        shrinkage=shrinkage,
        expected=expected,
    )


def expected_gains(probabilities: Array, labels: Array, *, min_support: int, folds: int, seed: int) -> dict[str, float]:
    """Return the macro-F1 that each way of choosing has on rows it did not see.

    Every fold's rows are decided with thresholds from the other folds, then scored all together, so that a rare label's
    F1 is not an average over folds without it.
    """
    fold_of = np.random.default_rng(seed).permutation(len(labels)) % folds
    ways = ["0.5", "shared", *map(_name, SHRINKAGES)]
    predicted = {way: np.zeros(labels.shape, bool) for way in ways}
    for fold in range(folds):
        seen, unseen = fold_of != fold, fold_of == fold
        chosen: dict[str, npt.NDArray[np.float64] | float] = {
            "0.5": 0.5,
            "shared": best_shared_threshold(probabilities[seen], labels[seen]),
        }
        for each in SHRINKAGES:
            chosen[_name(each)] = shrunk_thresholds(probabilities[seen], labels[seen], shrinkage=each, min_support=min_support)
        for way in ways:
            predicted[way][unseen] = probabilities[unseen] >= chosen[way]
    return {way: round(macro_f1(labels, predicted[way]), 4) for way in ways}


def _name(shrinkage: float) -> str:
    return f"shrinkage {shrinkage:g}"


def _f1_curves(probabilities: Array, labels: Array) -> npt.NDArray[np.float64]:
    """Return F1 at every threshold of the grid, [labels, grid]."""
    curves = np.empty((labels.shape[1], len(GRID)))
    for label in range(labels.shape[1]):
        over = probabilities[:, label, None] >= GRID
        hits = labels[:, label].astype(float) @ over
        curves[label] = f1_of_counts(hits, predicted=over.sum(0), support=labels[:, label].sum())
    return curves
