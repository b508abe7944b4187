"""How far probabilities are from the shares of rows that they foretell: expected calibration error, Brier score, the curve."""

from typing import Any

import numpy as np
import numpy.typing as npt

from worker.core.labels import GOEMOTIONS_LABELS

FloatArray = npt.NDArray[np.floating]
BINS = 15


def expected_calibration_errors(probabilities: FloatArray, labels: FloatArray, *, bins: int = BINS) -> npt.NDArray[np.float64]:
    """Return by label the mean distance of probability and share of rows, over bins of equally many rows.

    Naeini et al. 2015, with equal-mass bins (Nguyen and O'Connor 2015): most probabilities of a rare label lie near 0, where
    bins of equal width would hold nearly all rows.
    """
    order = np.argsort(probabilities, axis=0, kind="stable")
    foretold, true = (np.take_along_axis(each, order, axis=0) for each in (probabilities, labels))
    errors = np.zeros(probabilities.shape[1])
    for rows in np.array_split(np.arange(len(probabilities)), bins):
        if len(rows):
            errors += np.abs(foretold[rows].mean(0) - true[rows].mean(0)) * len(rows)
    return errors / max(1, len(probabilities))


def brier_scores(probabilities: FloatArray, labels: FloatArray) -> npt.NDArray[np.float64]:
    """Return by label the mean squared distance of probability and truth (Brier 1950)."""
    return np.asarray(((probabilities - labels) ** 2).mean(0), np.float64)


def calibration_scores(probabilities: FloatArray, labels: FloatArray) -> dict[str, Any]:
    """Return the calibration error and the Brier score, means over labels, and the error by label."""
    errors = expected_calibration_errors(probabilities, labels)
    return {
        "calibration_error": round(float(errors.mean()), 4),
        "brier": round(float(brier_scores(probabilities, labels).mean()), 4),
        "calibration_error_by_label": {
            label: round(float(error), 4) for label, error in zip(GOEMOTIONS_LABELS, errors, strict=True)
        },
    }


def reliability_curve(probabilities: FloatArray, labels: FloatArray, *, bins: int = 10) -> list[tuple[float, float, int]]:
    """Return mean probability, share of true cells and cells, of all labels' cells together, in bins of equal width."""
    foretold, true = probabilities.ravel(), labels.ravel()
    which = np.minimum((foretold * bins).astype(int), bins - 1)
    curve = []
    for number in np.unique(which):
        inside = which == number
        curve.append((float(foretold[inside].mean()), float(true[inside].mean()), int(inside.sum())))
    return curve
