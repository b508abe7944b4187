"""The stage `thresholds`: chosen on validation, then the hostile labels' moved together until false alarms are few."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from training.config import ThresholdConfig
from training.evaluation.metrics import macro_f1
from training.evaluation.saved_logits import Scored, read_scored, saved_splits
from training.evaluation.support_chats import HOSTILE, columns, support_scores
from training.thresholds.search import DECIMALS, GRID, choose_thresholds
from worker.core.labels import GOEMOTIONS_LABELS

FILE_NAME = "thresholds.json"
SHIFTS = np.arange(-30, 31) / 20


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
    thresholds, shift = choice.thresholds, 0.0
    tuning = [read_scored(predicted, f"{name}_tuning") for name in saved_splits(predicted, suffix="tuning")]
    if config.max_false_alarms is not None and tuning:
        joined = Scored(
            np.concatenate([each.probabilities for each in tuning]), np.concatenate([each.labels for each in tuning])
        )
        shift = hostile_shift(
            thresholds,
            joined,
            validation=validation,
            max_false_alarms=config.max_false_alarms,
            max_macro_loss=config.max_macro_loss,
        )
        thresholds = shifted(thresholds, shift)
    report = {
        "thresholds": dict(zip(GOEMOTIONS_LABELS, thresholds.tolist(), strict=True)),
        "shared": choice.shared,
        "shrinkage": choice.shrinkage,
        "expected_macro_f1": choice.expected,
        "hostile_shift": shift,
    }
    (output / FILE_NAME).write_text(json.dumps(report, indent=1) + "\n", "utf-8")
    return report


def read_thresholds(folder: Path) -> npt.NDArray[np.float64]:
    """Return the chosen thresholds in GoEmotions' order."""
    chosen = json.loads((folder / FILE_NAME).read_text("utf-8"))["thresholds"]
    return np.array([chosen[label] for label in GOEMOTIONS_LABELS])


def hostile_shift(
    thresholds: npt.NDArray[np.float64],
    tuning: Scored,
    *,
    validation: Scored,
    max_false_alarms: float,
    max_macro_loss: float,
) -> float:
    """Return the shift, in logits, of the hostile labels' thresholds that finds most hostile tuning rows.

    Only shifts count that cost validation at most `max_macro_loss` of macro-F1; of these, those with at most
    `max_false_alarms` on the tuning rows, or else the one with the fewest. Of equals, the nearest to 0.
    """
    best_macro = macro_f1(validation.labels, validation.probabilities >= thresholds)
    ranked = []
    for shift in SHIFTS.tolist():
        moved = shifted(thresholds, shift)
        loss = best_macro - macro_f1(validation.labels, validation.probabilities >= moved)
        scores = support_scores(tuning.labels, tuning.probabilities >= moved)
        within = scores["false_alarms"] <= max_false_alarms
        merit = scores["hostile_recall"] if within else -scores["false_alarms"]
        if shift == 0 or loss <= max_macro_loss:
            ranked.append((within, merit, -abs(shift), shift))
    return float(max(ranked)[-1])


def shifted(thresholds: npt.NDArray[np.float64], shift: float) -> npt.NDArray[np.float64]:
    """Return the thresholds with the hostile labels' moved by `shift` in logits, within the grid's limits."""
    logits = np.log(thresholds / (1 - thresholds)) + shift
    moved = np.clip(1 / (1 + np.exp(-logits)), GRID[0], GRID[-1])
    return np.where(columns(HOSTILE), np.round(moved, DECIMALS), thresholds)
