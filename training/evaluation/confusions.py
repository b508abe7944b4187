"""Which emotions are taken for which, and which go together."""

from typing import Any

import numpy as np
import numpy.typing as npt

from worker.core.labels import GOEMOTIONS_LABELS, NEUTRAL

Array = npt.NDArray[np.generic]
FloatArray = npt.NDArray[np.float64]


def confused_pairs(labels: Array, predicted: Array, *, count: int, with_neutral: bool) -> list[dict[str, Any]]:
    """Return the pairs that most rows confuse, most rows first: those with neutral, or those of two emotions.

    A row confuses A with B when A is true and not given, and B is given and not true. `share` is of all rows with A.
    """
    truth, said = labels.astype(bool), predicted.astype(bool)
    neutral = np.array(GOEMOTIONS_LABELS) == NEUTRAL
    rows = (truth & ~said).astype(float).T @ (said & ~truth).astype(float)
    rows *= (neutral[:, None] | neutral) == with_neutral
    pairs = np.dstack(np.unravel_index(np.argsort(-rows, axis=None, kind="stable"), rows.shape))[0][:count]
    support = truth.sum(0)
    return [
        {
            "label": GOEMOTIONS_LABELS[missed],
            "given": GOEMOTIONS_LABELS[given],
            "rows": int(rows[missed, given]),
            "share": round(float(rows[missed, given] / support[missed]), 4),
        }
        for missed, given in pairs
        if rows[missed, given] > 0
    ]


def label_correlations(probabilities: FloatArray) -> FloatArray:
    """Return the correlation of the labels' probabilities over rows, [28, 28]; 0 for a label that never varies."""
    spread = np.ptp(probabilities, axis=0) > 0
    correlation = np.zeros((len(spread), len(spread)))
    if spread.any():
        correlation[np.ix_(spread, spread)] = np.corrcoef(probabilities[:, spread], rowvar=False)
    return correlation


def strongest_correlations(probabilities: FloatArray, *, count: int) -> dict[str, list[tuple[str, str, float]]]:
    """Return the pairs of labels that go together most, and those that most shut each other out."""
    correlation = label_correlations(probabilities)
    first, second = np.triu_indices(len(correlation), k=1)
    order = np.argsort(correlation[first, second], kind="stable")
    named = [
        (GOEMOTIONS_LABELS[first[at]], GOEMOTIONS_LABELS[second[at]], round(float(correlation[first[at], second[at]]), 2))
        for at in order
    ]
    return {
        "together": [each for each in reversed(named[-count:]) if each[2] > 0],
        "apart": [each for each in named[:count] if each[2] < 0],
    }
