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


def rescale_to_threshold(probabilities: FloatArray, thresholds: FloatArray) -> npt.NDArray[np.float64]:
    """Map probabilities to 0..1 so that 0.5 is exactly the threshold: 0.5·p/t below, 0.5 + 0.5·(p − t)/(1 − t) above."""
    above = np.divide(probabilities - thresholds, 1.0 - thresholds, out=np.zeros_like(probabilities), where=thresholds < 1.0)
    return np.where(probabilities < thresholds, 0.5 * probabilities / thresholds, 0.5 + 0.5 * above)


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
        self._counted = [column for column, label in enumerate(self.label_order) if label in weights]
        self._column_weights = np.array([weights[self.label_order[column]] for column in self._counted], dtype=np.float64)
        self._calibration = calibration
        self._plain = np.array(thresholds, dtype=np.float64)
        self._at = self._plain if calibration is None else calibration.thresholds(self._plain)
        self._below = np.round(self._at - _STEP, PROBABILITY_DECIMALS)
        self._thresholds = tuple(self._at.tolist())

    def score(self, logits: FloatArray) -> Score:
        """Return the score of logits of shape [labels]."""
        return self.score_all([logits])[0]

    def score_all(self, rows: Sequence[FloatArray]) -> list[Score]:
        """Return the scores of several rows of logits, each of shape [labels]; together they take a fraction of the time."""
        if len(rows) == 0:
            return []
        published = self._published(np.stack(rows))
        is_over = published >= self._at
        negativities = self._negativities(published).tolist()
        return [
            Score(self._emotions(probabilities, labels), negativity, tuple(probabilities))
            for probabilities, labels, negativity in zip(published.tolist(), is_over, negativities, strict=True)
        ]

    def _emotions(self, probabilities: Sequence[float], is_over: npt.NDArray[np.bool_]) -> tuple[LabelProbability, ...]:
        """Return the labels at or above their thresholds, highest probability first; equal ones in label order."""
        found = [
            LabelProbability(self.label_order[column], probabilities[column], self._thresholds[column])
            for column in np.flatnonzero(is_over).tolist()
        ]
        return tuple(sorted(found, key=lambda each: -each.probability))

    def _negativities(self, published: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Return the highest weighted, rescaled probability of each row, over what the escalation policy counts."""
        if not self._counted:
            return np.zeros(len(published))
        probabilities = published[:, self._counted]
        rescaled = rescale_to_threshold(probabilities, self._at[self._counted])
        highest = np.clip((self._column_weights * rescaled).max(axis=1), 0.0, 1.0)
        return np.round(highest, PROBABILITY_DECIMALS)

    def _published(self, logits: FloatArray) -> npt.NDArray[np.float64]:
        plain = probabilities_from_logits(logits)
        if self._calibration is None:
            return plain
        calibrated = probabilities_from_logits(self._calibration.logits(logits))
        # Right at a threshold the two roundings can disagree: the number gives way, the decision stands.
        is_over = plain >= self._plain
        return np.where(is_over, np.maximum(calibrated, self._at), np.minimum(calibrated, self._below))
