"""How often the finished model gives each label to support messages: what the worker measures drift against."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from training.evaluation.saved_logits import read_scored, saved_splits
from worker.core.labels import GOEMOTIONS_LABELS

_DECIMALS = 6


def label_baseline(predicted: Path, thresholds: npt.NDArray[np.float64]) -> dict[str, Any]:
    """Return the manifest's `baseline`: shares of the labels given to the corpora's tuning parts, or to validation without any.

    Tuning parts, since training never saw them, so that the model is no surer of them than of others, and since validation is
    Reddit.
    """
    parts = [f"{name}_tuning" for name in saved_splits(predicted, suffix="tuning")] or ["validation"]
    given = np.concatenate([read_scored(predicted, part).probabilities >= thresholds for part in parts])
    shares = np.round(given.mean(0), _DECIMALS).tolist()
    return {
        "source": ", ".join(parts),
        "messages": len(given),
        "shares": dict(zip(GOEMOTIONS_LABELS, shares, strict=True)),
        "unlabelled": round(float((~given.any(1)).mean()), _DECIMALS),
    }
