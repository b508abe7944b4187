"""The stage `evaluate`: every figure that the report, the card and the manifest quote, from saved logits."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from training.evaluation.calibration_error import calibration_scores
from training.evaluation.confusions import confused_pairs, strongest_correlations
from training.evaluation.escalations import escalation_scores
from training.evaluation.metrics import averages, bootstrap_interval, label_scores, macro_f1, summary
from training.evaluation.saved_logits import Scored, read_calibrated, read_scored, saved_splits
from training.evaluation.support_chats import support_scores
from training.evaluation.tones import noise_scores, tone_scores
from training.thresholds.search import best_thresholds
from worker.core.escalation import EscalationPolicy
from worker.core.labels import GOEMOTIONS_LABELS
from worker.core.scoring import Calibration, Scorer

_CONFUSED = {"emotions": 12, "neutral": 6}
_CORRELATED = 8


@dataclass(frozen=True, slots=True)
class Deciding:
    """What turns logits into labels and escalations: thresholds [28] on plain sigmoids, the calibration, the policy."""

    thresholds: npt.NDArray[np.float64]
    calibration: Calibration | None
    policy: EscalationPolicy

    def scorer(self) -> Scorer:
        """Return the worker's scorer."""
        return Scorer(
            GOEMOTIONS_LABELS,
            thresholds=self.thresholds.tolist(),
            weights=self.policy.weights,
            calibration=self.calibration,
        )


def score_run(predicted: Path, deciding: Deciding, *, seed: int) -> dict[str, Any]:
    """Return the scores of a run; every decision in them uses the worker's rounding and `>=`.

    What only the report shows, and the manifest does without, is under `details`.
    """
    validation, test = read_scored(predicted, "validation"), read_scored(predicted, "test")
    parts = corpus_parts(predicted)
    corpora = {part: read_scored(predicted, part) for part in parts}
    thresholds = deciding.thresholds
    decided = test.probabilities >= thresholds
    calibration = _calibration(predicted, deciding.calibration, parts=("test", *parts))
    return {
        "validation": _split_scores(validation, thresholds, seed=seed),
        "test": _split_scores(test, thresholds, seed=seed),
        "test_by_label": _by_label(test, deciding),
        "test_averages": averages(test.labels, decided),
        "optimistic_union": union_scores(validation, test),
        "corpora": {part: _corpus_scores(scored, thresholds) for part, scored in corpora.items()},
        "tones": {
            part: tone_scores(scored.labels, scored.probabilities >= thresholds)
            for part, scored in {"test": test, **corpora}.items()
        },
        "noise": {part: found for part in parts if (found := noise_scores(predicted, part, thresholds))},
        "escalations": escalation_scores(predicted, deciding.policy, deciding.scorer()),
        "calibration": {
            part: {when: _without_labels(each) for when, each in found.items()} for part, found in calibration.items()
        },
        "details": {
            "calibration": calibration,
            "confused": {
                name: confused_pairs(test.labels, decided, count=count, with_neutral=name == "neutral")
                for name, count in _CONFUSED.items()
            },
            "correlated": strongest_correlations(test.probabilities, count=_CORRELATED),
        },
    }


def corpus_parts(predicted: Path) -> list[str]:
    """Return the corpora's tuning and reporting parts that logits were saved of."""
    return [f"{name}_{part}" for part in ("tuning", "reporting") for name in saved_splits(predicted, suffix=part)]


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


def _by_label(scored: Scored, deciding: Deciding) -> dict[str, dict[str, float]]:
    scores = label_scores(scored.labels, scored.probabilities >= deciding.thresholds)
    published = deciding.thresholds
    if deciding.calibration is not None:
        published = deciding.calibration.thresholds(deciding.thresholds)
    return {
        label: {
            "precision": round(float(scores.precision[index]), 4),
            "recall": round(float(scores.recall[index]), 4),
            "f1": round(float(scores.f1[index]), 4),
            "support": int(scores.support[index]),
            "threshold": float(deciding.thresholds[index]),
            "published_threshold": float(published[index]),
        }
        for index, label in enumerate(GOEMOTIONS_LABELS)
    }


def _corpus_scores(scored: Scored, thresholds: npt.NDArray[np.float64]) -> dict[str, Any]:
    decided = scored.probabilities >= thresholds
    return {**support_scores(scored.labels, decided), **summary(scored.labels, decided)}


def _calibration(predicted: Path, calibration: Calibration | None, *, parts: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Return calibration error and Brier score before and after, of the parts that no calibration was fitted on."""
    scores = {}
    for part in parts:
        if part.endswith("_tuning"):
            continue
        plain, calibrated = read_scored(predicted, part), read_calibrated(predicted, part, calibration)
        scores[part] = {
            "before": calibration_scores(plain.probabilities, plain.labels),
            "after": calibration_scores(calibrated.probabilities, calibrated.labels),
        }
    return scores


def _without_labels(scores: dict[str, Any]) -> dict[str, float]:
    return {name: value for name, value in scores.items() if name != "calibration_error_by_label"}
