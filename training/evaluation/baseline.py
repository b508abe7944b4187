"""How often the finished model gives each label to support messages: what the worker measures drift against."""

from pathlib import Path

import numpy as np
import numpy.typing as npt

from training.evaluation.saved_logits import read_scored, saved_splits
from worker.core.drift import LabelBaseline, LabelCounts, baseline_of
from worker.core.labels import GOEMOTIONS_LABELS


def label_baseline(predicted: Path, thresholds: npt.NDArray[np.float64]) -> LabelBaseline:
    """Return the manifest's `baseline`: labels given to the corpora's tuning parts, or to validation where there are none.

    Tuning parts, since training never saw them, so that the model is no surer of them than of others, and since validation is
    Reddit.
    """
    parts = [f"{name}_tuning" for name in saved_splits(predicted, suffix="tuning")] or ["validation"]
    given = np.concatenate([read_scored(predicted, part).probabilities >= thresholds for part in parts])
    counts = dict(zip(GOEMOTIONS_LABELS, given.sum(0).tolist(), strict=True))
    return baseline_of(LabelCounts(len(given), counts, int((~given.any(1)).sum())), source=", ".join(parts))
