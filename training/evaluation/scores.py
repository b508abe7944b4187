"""The stage `evaluate`: every figure that the report, the card and the manifest quote, from saved logits."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from training.evaluation.metrics import bootstrap_interval, label_scores, macro_f1, summary
from training.evaluation.saved_logits import Scored, read_scored, saved_splits
from training.evaluation.support_chats import support_scores
from training.thresholds.search import best_thresholds
from worker.core.labels import GOEMOTIONS_LABELS


def score_run(*, predicted: Path, thresholds: npt.NDArray[np.float64], seed: int) -> dict[str, Any]:
    """Return the scores of a run; every decision in them uses the worker's rounding and `>=`."""
    validation, test = read_scored(predicted, "validation"), read_scored(predicted, "test")
    return {
        "validation": _split_scores(validation, thresholds, seed=seed),
        "test": _split_scores(test, thresholds, seed=seed),
        "test_by_label": _by_label(test, thresholds),
        "optimistic_union": union_scores(validation, test),
        "corpora": {
            f"{name}_{part}": _corpus_scores(read_scored(predicted, f"{name}_{part}"), thresholds)
            for part in ("tuning", "reporting")
            for name in saved_splits(predicted, suffix=part)
        },
    }


def union_scores(validation: Scored, test: Scored) -> dict[str, float]:
    """Return the author's optimistic protocol: thresholds tuned and scored on validation and test together.

    It sees the answers it is scored on; it serves only to compare with figures published that way.
    """
    probabilities = np.concatenate([validation.probabilities, test.probabilities])
    labels = np.concatenate([validation.labels, test.labels])
    tuned = probabilities >= best_thresholds(probabilities, labels)
    return {
        "macro_f1_at_half": round(macro_f1(labels, probabilities >= 0.5), 4),
        "macro_f1_tuned": round(macro_f1(labels, tuned), 4),
    }


def _split_scores(scored: Scored, thresholds: npt.NDArray[np.float64], *, seed: int) -> dict[str, Any]:
    scores = {}
    for name, cut in (("at_half", np.full(len(thresholds), 0.5)), ("tuned", thresholds)):
        decided = scored.probabilities >= cut
        interval = bootstrap_interval(scored.labels, decided, score=macro_f1, seed=seed)
        scores[name] = {**summary(scored.labels, decided), "macro_f1_interval": list(interval)}
    return {"rows": len(scored.labels), **scores}


def _by_label(scored: Scored, thresholds: npt.NDArray[np.float64]) -> dict[str, dict[str, float]]:
    scores = label_scores(scored.labels, scored.probabilities >= thresholds)
    return {
        label: {
            "precision": round(float(scores.precision[index]), 4),
            "recall": round(float(scores.recall[index]), 4),
            "f1": round(float(scores.f1[index]), 4),
            "support": int(scores.support[index]),
            "threshold": float(thresholds[index]),
        }
        for index, label in enumerate(GOEMOTIONS_LABELS)
    }


def _corpus_scores(scored: Scored, thresholds: npt.NDArray[np.float64]) -> dict[str, Any]:
    decided = scored.probabilities >= thresholds
    return {**support_scores(scored.labels, decided), **summary(scored.labels, decided)}
