"""From logits to probabilities, from probabilities to labels, and how negative a message is.

Labels are decided in one space, the plain sigmoid of the logits, where thresholds are chosen. A bundle's calibration changes
the numbers that are published, probability and threshold alike, never a decision.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.floating]

# Probabilities are rounded before anything is decided on them, so that the last bits of a float sum, which depend on the
# shape of the micro-batch, can't move a decision, and so that what is published is what was decided on.
PROBABILITY_DECIMALS = 4
_STEP = 10.0**-PROBABILITY_DECIMALS


@dataclass(frozen=True, slots=True)
class LabelProbability:
    """One label at or above its threshold."""

    label: str
    probability: float
    threshold: float


def probabilities_from_logits(logits: FloatArray) -> npt.NDArray[np.float64]:
    """Return the sigmoid of logits of any shape, rounded to `PROBABILITY_DECIMALS`."""
    # Written with tanh because it can't overflow, whatever the logit.
    sigmoid = 0.5 * (1.0 + np.tanh(0.5 * logits.astype(np.float64)))
    return np.round(sigmoid, PROBABILITY_DECIMALS)


@dataclass(frozen=True, slots=True)
class Calibration:
    """Platt scaling: a label's calibrated probability is sigmoid(scale · logit + offset). In label order, scales above 0."""

    scales: tuple[float, ...]
    offsets: tuple[float, ...]

    def logits(self, logits: FloatArray) -> npt.NDArray[np.float64]:
        """Return calibrated logits of logits of shape [..., labels]."""
        return logits.astype(np.float64) * np.array(self.scales) + np.array(self.offsets)

    def thresholds(self, plain: FloatArray) -> npt.NDArray[np.float64]:
        """Return where thresholds on the plain sigmoid, [labels], come to lie: rounded, but never to 0."""
        with np.errstate(divide="ignore"):
            logits = np.log(plain) - np.log1p(-plain)
        return np.maximum(probabilities_from_logits(self.logits(logits)), _STEP)


def labels_over_threshold(
    probabilities: Sequence[float], label_order: Sequence[str], *, thresholds: Sequence[float]
) -> tuple[LabelProbability, ...]:
    """Return the labels at or above their thresholds, highest probability first; equal ones in label order."""
    found = [
        LabelProbability(label, float(probability), float(threshold))
        for label, probability, threshold in zip(label_order, probabilities, thresholds, strict=True)
        if probability >= threshold
    ]
    return tuple(sorted(found, key=lambda each: -each.probability))


def rescale_to_threshold(probability: float, threshold: float) -> float:
    """Map a probability to 0..1 so that 0.5 is exactly its threshold: 0.5·p/t below, 0.5 + 0.5·(p − t)/(1 − t) above."""
    if probability < threshold:
        return 0.5 * probability / threshold
    if threshold >= 1.0:
        return 0.5
    return 0.5 + 0.5 * (probability - threshold) / (1.0 - threshold)


def negativity_of(
    probabilities: Sequence[float],
    label_order: Sequence[str],
    *,
    thresholds: Sequence[float],
    weights: Mapping[str, float],
) -> float:
    """Return the highest weighted, rescaled probability over the emotions that the escalation policy counts, 0..1."""
    highest = max(
        (
            weights[label] * rescale_to_threshold(float(probability), float(threshold))
            for label, probability, threshold in zip(label_order, probabilities, thresholds, strict=True)
            if label in weights
        ),
        default=0.0,
    )
    return round(min(1.0, max(0.0, highest)), PROBABILITY_DECIMALS)


@dataclass(frozen=True, slots=True)
class Score:
    """What the model heard in one text. `probabilities` are of all labels, in label order."""

    emotions: tuple[LabelProbability, ...]
    negativity: float
    probabilities: tuple[float, ...]


class Scorer:
    """From a text's logits to its score, by a bundle's thresholds and calibration and the escalation policy's weights.

    - `thresholds` are of plain sigmoids and decide; what `Score` holds is calibrated, thresholds too.
    - A calibrated probability is at or above its calibrated threshold exactly when the label was decided.
    """

    def __init__(
        self,
        label_order: Sequence[str],
        *,
        thresholds: Sequence[float],
        weights: Mapping[str, float],
        calibration: Calibration | None = None,
    ) -> None:
        self.label_order = tuple(label_order)
        self._weights = dict(weights)
        self._calibration = calibration
        self._plain = np.array(thresholds, dtype=np.float64)
        self._at = self._plain if calibration is None else calibration.thresholds(self._plain)
        self._below = np.round(self._at - _STEP, PROBABILITY_DECIMALS)
        self._thresholds = tuple(self._at.tolist())

    def score(self, logits: FloatArray) -> Score:
        """Return the score of logits of shape [labels]."""
        probabilities = self._published(logits).tolist()
        return Score(
            emotions=labels_over_threshold(probabilities, self.label_order, thresholds=self._thresholds),
            negativity=negativity_of(probabilities, self.label_order, thresholds=self._thresholds, weights=self._weights),
            probabilities=tuple(probabilities),
        )

    def _published(self, logits: FloatArray) -> npt.NDArray[np.float64]:
        plain = probabilities_from_logits(logits)
        if self._calibration is None:
            return plain
        calibrated = probabilities_from_logits(self._calibration.logits(logits))
        # Right at a threshold the two roundings can disagree: the number gives way, the decision stands.
        is_over = plain >= self._plain
        return np.where(is_over, np.maximum(calibrated, self._at), np.minimum(calibrated, self._below))
