"""Moves the hostile labels' thresholds so that support chats see most hostile messages found at few false alarms.

The five labels are asked as one question, "is this client hostile?", so their false alarms add up; thresholds chosen label by
label on another domain can't know that.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from training.evaluation.metrics import label_scores
from training.evaluation.saved_logits import Scored
from training.evaluation.support_chats import CALM, HOSTILE, columns, has_any
from worker.core.labels import GOEMOTIONS_LABELS

SHIFTS = np.arange(-40, 41) / 20
_UNMOVED = len(SHIFTS) // 2
_PASSES = 6
_FALSE_ALARM_PENALTY = 4.0  # a false alarm above the limit costs as much as four hostile messages missed
_DECIMALS = 3
_LEAST, _MOST = 0.01, 0.99
_MOVE_COST = 1e-3  # of recall, for a shift of 1: what does not help stays where it was


@dataclass(frozen=True, slots=True)
class HostileLimits:
    """At most this share of false alarms on tuning rows, at most this loss of macro-F1 on validation."""

    max_false_alarms: float
    max_macro_loss: float


def move_hostile_thresholds(
    thresholds: npt.NDArray[np.float64], tuning: Scored, *, validation: Scored, limits: HostileLimits
) -> npt.NDArray[np.float64]:
    """Return the thresholds with each hostile label's moved by a shift in logits, the others as they were.

    Climbs label by label, from every common shift that validation allows, on recall of hostile tuning rows less a penalty
    for false alarms above the limit. The loss of validation macro-F1 is a hard limit.
    """
    search = _Search.prepare(thresholds, tuning, validation=validation, limits=limits)
    starts = [[index] * int(columns(HOSTILE).sum()) for index in range(0, len(SHIFTS), 4)]
    best = max((search.climb(start) for start in [*starts, search.unmoved()]), key=search.merit)
    moved = thresholds.copy()
    moved[columns(HOSTILE)] = [search.candidates[label, index] for label, index in enumerate(best)]
    return moved


@dataclass(frozen=True, slots=True)
class _Search:
    """What every shift of every hostile label would do.

    `candidates` [labels, shifts] thresholds, `over` [rows, labels, shifts] tuning decisions, `losses` [labels, shifts] of
    validation macro-F1, `hostile` and `calm` [rows] truths.
    """

    candidates: npt.NDArray[np.float64]
    over: npt.NDArray[np.bool_]
    losses: npt.NDArray[np.float64]
    hostile: npt.NDArray[np.bool_]
    calm: npt.NDArray[np.bool_]
    limits: HostileLimits

    @classmethod
    def prepare(
        cls, thresholds: npt.NDArray[np.float64], tuning: Scored, *, validation: Scored, limits: HostileLimits
    ) -> "_Search":
        which = columns(HOSTILE)
        logits = np.log(thresholds[which] / (1 - thresholds[which]))[:, None] + SHIFTS
        within: npt.NDArray[np.float64] = np.clip(1 / (1 + np.exp(-logits)), _LEAST, _MOST)
        candidates = np.round(within, _DECIMALS)
        candidates[:, _UNMOVED] = thresholds[which]
        labels, probabilities = validation.labels[:, which], validation.probabilities[:, which]
        f1 = np.stack([label_scores(labels, probabilities >= each).f1 for each in candidates.T], axis=1)
        return cls(
            candidates=candidates,
            over=tuning.probabilities[:, which, None] >= candidates,
            losses=(f1[:, [_UNMOVED]] - f1) / len(thresholds),
            hostile=has_any(tuning.labels, HOSTILE),
            calm=~has_any(tuning.labels, frozenset(GOEMOTIONS_LABELS) - CALM),
            limits=limits,
        )

    def unmoved(self) -> list[int]:
        return [_UNMOVED] * len(self.candidates)

    def merit(self, shifts: list[int]) -> float:
        """Return recall less the penalty of false alarms; minus infinity where validation loses too much."""
        every = np.arange(len(shifts))
        if self.losses[every, shifts].sum() > self.limits.max_macro_loss:
            return -np.inf
        said = np.asarray(self.over[:, every, shifts].any(1))
        excess = max(0.0, float(said[self.calm].mean()) - self.limits.max_false_alarms)
        moves = float(np.abs(SHIFTS[shifts]).sum())
        return float(said[self.hostile].mean()) - _FALSE_ALARM_PENALTY * excess - _MOVE_COST * moves

    def climb(self, start: list[int]) -> list[int]:
        """Move one label at a time to where merit is highest, until no move helps."""
        shifts = list(start)
        for _ in range(_PASSES):
            before = list(shifts)
            for label in range(len(shifts)):
                options = [[*shifts[:label], index, *shifts[label + 1 :]] for index in range(len(SHIFTS))]
                shifts = max([shifts, *options], key=self.merit)
            if shifts == before:
                break
        return shifts
