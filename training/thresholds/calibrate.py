"""The stage `calibrate`: Platt scaling of the saved logits, so that published probabilities are shares of rows; numpy only.

A label's calibrated probability is sigmoid(scale · logit + offset), fitted by log loss on validation and on the corpora's
tuning parts, each domain with half of the total weight: what the worker reads is support chats, but the corpora are small and
written, GoEmotions is large and found. Decisions are none of its business: they stay where thresholds were chosen.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from training.config import CalibrationConfig
from training.evaluation.calibration_error import calibration_scores
from training.evaluation.saved_logits import read_logits, read_scored, saved_splits
from worker.core.labels import GOEMOTIONS_LABELS
from worker.core.scoring import Calibration, probabilities_from_logits

FloatArray = npt.NDArray[np.floating]
Fitted = tuple[float, float]

FILE_NAME = "calibration.json"
_DECIMALS = 4
_MIN_SCALE = 0.05
_STEPS = 100
_TOLERANCE = 1e-10
_RIDGE = 1e-9  # keeps a step defined where all rows are sure


def calibrate(config: CalibrationConfig, *, predicted: Path, output: Path, seed: int) -> dict[str, Any]:
    """Write calibration.json: scale and offset a label, and cross-validated errors before and after, by split."""
    parts = ["validation", *(f"{name}_tuning" for name in saved_splits(predicted, suffix="tuning"))]
    scored = [read_scored(predicted, part) for part in parts]
    part_of = np.repeat(np.arange(len(parts)), [len(each.labels) for each in scored])
    logits = np.concatenate([read_logits(predicted, part) for part in parts]).astype(np.float64)
    labels = np.concatenate([each.labels for each in scored]).astype(np.float64)
    weights = _domain_weights(part_of)
    calibration = fit_calibration(config, logits, labels, weights=weights)
    held_out = _held_out_probabilities(config, logits, labels, weights=weights, seed=seed)
    errors = {
        part: {
            "before": calibration_scores(scored[number].probabilities, labels[part_of == number]),
            "after": calibration_scores(held_out[part_of == number], labels[part_of == number]),
        }
        for number, part in enumerate(parts)
    }
    report = {
        "method": config.method,
        "labels": {
            label: {"scale": scale, "offset": offset}
            for label, scale, offset in zip(GOEMOTIONS_LABELS, calibration.scales, calibration.offsets, strict=True)
        },
        "cross_validated": errors,
    }
    (output / FILE_NAME).write_text(json.dumps(report, indent=1) + "\n", "utf-8")
    return {part: {when: each[when]["calibration_error"] for when in ("before", "after")} for part, each in errors.items()}


def read_calibration(folder: Path) -> Calibration | None:
    """Return the fitted calibration in GoEmotions' order; None where the method was "none"."""
    report = json.loads((folder / FILE_NAME).read_text("utf-8"))
    if report["method"] == "none":
        return None
    fitted = report["labels"]
    return Calibration(
        tuple(fitted[label]["scale"] for label in GOEMOTIONS_LABELS),
        tuple(fitted[label]["offset"] for label in GOEMOTIONS_LABELS),
    )


def fit_calibration(config: CalibrationConfig, logits: FloatArray, labels: FloatArray, *, weights: FloatArray) -> Calibration:
    """Fit by the configured method. `logits` and 0/1 `labels` are [rows, labels], `weights` [rows]."""
    ways: dict[str, Callable[[], list[Fitted]]] = {
        "platt": lambda: _platt(logits, labels, weights, held=config.shrinkage),
        "temperature": lambda: _temperature(logits, labels, weights),
        "none": lambda: [(1.0, 0.0)] * labels.shape[1],
    }
    fitted = ways[config.method]()
    return Calibration(
        tuple(round(max(scale, _MIN_SCALE), _DECIMALS) for scale, _ in fitted),
        tuple(round(offset, _DECIMALS) for _, offset in fitted),
    )


def _platt(logits: FloatArray, labels: FloatArray, weights: FloatArray, *, held: float) -> list[Fitted]:
    """Return scale and offset of each label (Platt 1999), scales of rare labels held toward one fitted to all labels' cells.

    The scale is (support · own + held · shared) / (support + held); the offset is fitted given that scale, since how often a
    label holds can be told from few rows, and how sharply its logits part from chance can't.
    """
    targets = _smoothed_targets(labels)
    every = np.repeat(weights, labels.shape[1])
    shared = _fit(_columns(logits.ravel()), targets.ravel(), every, start=(1.0, 0.0))[0]
    fitted = []
    for label in range(labels.shape[1]):
        column, target = logits[:, label], targets[:, label]
        own = _fit(_columns(column), target, weights, start=(1.0, 0.0))[0]
        support = float(labels[:, label].sum())
        share = support / (support + held) if support else 0.0
        scale = max(_MIN_SCALE, share * own + (1 - share) * shared)
        offset = _fit(np.ones((len(column), 1)), target, weights, start=(0.0,), base=scale * column)[0]
        fitted.append((scale, offset))
    return fitted


def _temperature(logits: FloatArray, labels: FloatArray, weights: FloatArray) -> list[Fitted]:
    """Return one scale for all labels, no offset (Guo et al. 2017)."""
    every = np.repeat(weights, labels.shape[1])
    (scale,) = _fit(logits.reshape(-1, 1), labels.ravel(), every, start=(1.0,))
    return [(scale, 0.0)] * labels.shape[1]


def _smoothed_targets(labels: FloatArray) -> FloatArray:
    """Return Platt's targets, (N₊ + 1)/(N₊ + 2) and 1/(N₋ + 2) by label, which keep scarce labels from being certain."""
    positive = labels.sum(0)
    return np.where(labels > 0, (positive + 1) / (positive + 2), 1 / (len(labels) - positive + 2))


def _fit(
    features: FloatArray, targets: FloatArray, weights: FloatArray, *, start: tuple[float, ...], base: FloatArray | float = 0.0
) -> tuple[float, ...]:
    """Return the weights of a logistic regression on soft targets, by Newton's method with halved steps.

    `features` are [rows, weights]; `base` is added to the logit as it is.
    """
    found = np.array(start)
    loss = _log_loss(features @ found + base, targets, weights)
    for _ in range(_STEPS):
        probabilities = _sigmoid(features @ found + base)
        gradient = features.T @ (weights * (probabilities - targets))
        curvature = (features.T * (weights * probabilities * (1 - probabilities))) @ features
        step = np.linalg.solve(curvature + _RIDGE * np.eye(len(found)), gradient)
        smaller = _log_loss(features @ (found - step) + base, targets, weights)
        while smaller > loss and np.abs(step).max() > _TOLERANCE:
            step = step / 2
            smaller = _log_loss(features @ (found - step) + base, targets, weights)
        if loss - smaller <= _TOLERANCE * loss:
            break
        found, loss = found - step, smaller
    return tuple(found.tolist())


def _log_loss(logits: FloatArray, targets: FloatArray, weights: FloatArray) -> float:
    return float((weights * (np.logaddexp(0.0, logits) - targets * logits)).sum())


def _sigmoid(logits: FloatArray) -> FloatArray:
    return 0.5 * (1.0 + np.tanh(0.5 * logits))


def _columns(logits: FloatArray) -> FloatArray:
    return np.stack([logits, np.ones_like(logits)], axis=1)


def _domain_weights(part_of: npt.NDArray[np.integer]) -> FloatArray:
    """Return a weight a row: validation's rows and all other parts' rows weigh the same in total, 1 a row on average."""
    is_corpus = part_of > 0
    if not is_corpus.any():
        return np.ones(len(part_of))
    half = len(part_of) / 2
    return np.where(is_corpus, half / is_corpus.sum(), half / (~is_corpus).sum())


def _held_out_probabilities(
    config: CalibrationConfig, logits: FloatArray, labels: FloatArray, *, weights: FloatArray, seed: int
) -> FloatArray:
    """Return every row's calibrated probabilities by the fit on the folds that do not have it."""
    fold_of = np.random.default_rng(seed).permutation(len(labels)) % config.folds
    probabilities = np.zeros(labels.shape)
    for fold in range(config.folds):
        seen, unseen = fold_of != fold, fold_of == fold
        fitted = fit_calibration(config, logits[seen], labels[seen], weights=weights[seen])
        probabilities[unseen] = probabilities_from_logits(fitted.logits(logits[unseen]))
    return probabilities
