"""The stage `thresholds`: chosen on validation, then the hostile labels' moved with the support chats in view."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from training.config import ThresholdConfig
from training.evaluation.saved_logits import Scored, read_scored, saved_splits
from training.thresholds.hostile import HostileLimits, move_hostile_thresholds
from training.thresholds.search import choose_thresholds
from worker.core.labels import GOEMOTIONS_LABELS

FILE_NAME = "thresholds.json"


def choose(config: ThresholdConfig, *, predicted: Path, output: Path, seed: int) -> dict[str, Any]:
    """Write thresholds.json: a threshold a label, how it was chosen and what cross-validation expects of it."""
    validation = read_scored(predicted, "validation")
    choice = choose_thresholds(
        validation.probabilities,
        validation.labels,
        shrinkage=config.shrinkage,
        min_support=config.min_support,
        folds=config.folds,
        seed=seed,
    )
    thresholds = choice.thresholds
    tuning = [read_scored(predicted, f"{name}_tuning") for name in saved_splits(predicted, suffix="tuning")]
    if config.max_false_alarms is not None and tuning:
        joined = Scored(
            np.concatenate([each.probabilities for each in tuning]), np.concatenate([each.labels for each in tuning])
        )
        limits = HostileLimits(config.max_false_alarms, config.max_macro_loss)
        thresholds = move_hostile_thresholds(thresholds, joined, validation=validation, limits=limits)
    report = {
        "thresholds": dict(zip(GOEMOTIONS_LABELS, thresholds.tolist(), strict=True)),
        "shared": choice.shared,
        "shrinkage": choice.shrinkage,
        "expected_macro_f1": choice.expected,
        "moved": {
            label: [float(before), float(after)]
            for label, before, after in zip(GOEMOTIONS_LABELS, choice.thresholds, thresholds, strict=True)
            if before != after
        },
    }
    (output / FILE_NAME).write_text(json.dumps(report, indent=1) + "\n", "utf-8")
    return report


def read_thresholds(folder: Path) -> npt.NDArray[np.float64]:
    """Return the chosen thresholds in GoEmotions' order."""
    chosen = json.loads((folder / FILE_NAME).read_text("utf-8"))["thresholds"]
    return np.array([chosen[label] for label in GOEMOTIONS_LABELS])
