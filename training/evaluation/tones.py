"""What becomes of a message's tone: how well it is told, and whether chat noise changes it."""

from pathlib import Path
from typing import Any, get_args

import numpy as np
import numpy.typing as npt

from training.evaluation.predictions import NOISED_SUFFIX
from training.finetune.noise import NOISE_KINDS
from worker.core.labels import GOEMOTIONS_LABELS, Tone, tone_of
from worker.core.scoring import probabilities_from_logits

Array = npt.NDArray[np.generic]
Tones = npt.NDArray[np.str_]
TONES: tuple[str, ...] = get_args(Tone)
_WITH_NEGATIVE = ("negative", "mixed")


def tones_of(cells: Array) -> Tones:
    """Return the tone of each row of 0/1 cells, [rows]."""
    names = np.array(GOEMOTIONS_LABELS)
    return np.array([tone_of(names[row]) for row in cells.astype(bool)], dtype="<U9")


def tone_scores(labels: Array, predicted: Array) -> dict[str, Any]:
    """Return how negative messages are told from others, and the confusion of tones.

    A message counts as negative when any of its labels is, so `mixed` does too. `confusion` maps true tone, then given tone, to
    rows.
    """
    true, given = tones_of(labels), tones_of(predicted)
    is_negative, said_negative = np.isin(true, _WITH_NEGATIVE), np.isin(given, _WITH_NEGATIVE)
    hits = float((is_negative & said_negative).sum())
    precision, recall = hits / max(1, said_negative.sum()), hits / max(1, is_negative.sum())
    return {
        "rows": len(true),
        "negative_rows": int(is_negative.sum()),
        "precision": round(precision, 4),
        "recall": round(recall, 4),
        "f1": round(2 * precision * recall / max(1e-12, precision + recall), 4),
        "same_tone": round(float((true == given).mean()), 4) if len(true) else 0.0,
        "confusion": {row: {column: int(((true == row) & (given == column)).sum()) for column in TONES} for row in TONES},
    }


def noise_scores(predicted: Path, part: str, thresholds: npt.NDArray[np.float64]) -> dict[str, dict[str, float]]:
    """Return by kind of noise the share of a part's texts that it changes, and of those the share whose tone stays as it was.

    Empty where `predict` saved no noised copies of the part.
    """
    path = predicted / f"{part}{NOISED_SUFFIX}.npz"
    if not path.exists():
        return {}
    with np.load(path, allow_pickle=False) as saved, np.load(predicted / f"{part}.npz", allow_pickle=False) as clean:
        before = tones_of(probabilities_from_logits(clean["logits"]) >= thresholds)
        scores = {}
        for kind in NOISE_KINDS:
            changed = saved[f"{kind}_changed"]
            stays = tones_of(probabilities_from_logits(saved[kind]) >= thresholds) == before
            scores[kind] = {
                "changed_texts": round(float(changed.mean()), 4),
                "same_tone": round(float(stays[changed].mean()), 4) if changed.any() else 1.0,
                "same_tone_of_all": round(float(stays.mean()), 4),
            }
    return scores
