"""What a support centre wants to know of the labels: hostile clients found, false alarms, distress not taken for hostility."""

import numpy as np
import numpy.typing as npt

from worker.core.labels import GOEMOTIONS_LABELS, NEGATIVE, NEUTRAL, POSITIVE

Array = npt.NDArray[np.generic]
HOSTILE = frozenset({"anger", "annoyance", "disappointment", "disapproval", "disgust"})
DISTRESS = NEGATIVE - HOSTILE
CALM = POSITIVE | {NEUTRAL}


def columns(labels: frozenset[str]) -> npt.NDArray[np.bool_]:
    """Return which of GoEmotions' columns these labels are, [28]."""
    return np.array([label in labels for label in GOEMOTIONS_LABELS])


def has_any(cells: Array, labels: frozenset[str]) -> npt.NDArray[np.bool_]:
    """Return which rows of 0/1 cells have any of the labels, [rows]."""
    return np.asarray(cells.astype(bool)[:, columns(labels)].any(1))


def support_scores(labels: Array, predicted: Array) -> dict[str, float | int]:
    """Return shares of rows, each over the rows that it can concern.

    - `hostile_recall`: of rows with a hostile label, those that are given one.
    - `false_alarms`: of rows that are neutral or positive only, those that are given a hostile label.
    - `distress_found`: of rows in distress without hostility, those given a label of distress;
      `distress_as_hostile`: those given a hostile one; `distress_clean`: distress and nothing hostile.
    """
    hostile, said_hostile = has_any(labels, HOSTILE), has_any(predicted, HOSTILE)
    calm = ~has_any(labels, frozenset(GOEMOTIONS_LABELS) - CALM)
    distress, said_distress = has_any(labels, DISTRESS) & ~hostile, has_any(predicted, DISTRESS)
    return {
        "rows": len(labels),
        "hostile_rows": int(hostile.sum()),
        "hostile_recall": _share(said_hostile, hostile),
        "calm_rows": int(calm.sum()),
        "false_alarms": _share(said_hostile, calm),
        "distress_rows": int(distress.sum()),
        "distress_found": _share(said_distress, distress),
        "distress_as_hostile": _share(said_hostile, distress),
        "distress_clean": _share(said_distress & ~said_hostile, distress),
    }


def _share(chosen: npt.NDArray[np.bool_], among: npt.NDArray[np.bool_]) -> float:
    return round(float(chosen[among].mean()), 4) if among.any() else 0.0
