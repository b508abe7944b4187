"""A look at the errors: the worst misses and false alarms of a split, by how far from its threshold a label was."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from training.data.rows import Row
from worker.core.labels import GOEMOTIONS_LABELS

FloatArray = npt.NDArray[np.floating]


@dataclass(frozen=True, slots=True)
class Mistake:
    """A label that a row has and was not given, or was given and does not have; and all the labels it was given."""

    row: Row
    label: str
    given: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Mistakes:
    """Worst first, each label at most `per_label` times, each row once."""

    misses: list[Mistake]
    false_alarms: list[Mistake]


def worst_mistakes(
    rows: Sequence[Row],
    probabilities: FloatArray,
    labels: FloatArray,
    *,
    thresholds: FloatArray,
    count: int,
    per_label: int = 2,
) -> Mistakes:
    """Return the `count` worst of each kind: the labels whose logits lie farthest on the wrong side of the threshold."""
    clipped = np.clip(probabilities, 1e-4, 1 - 1e-4)
    distance = np.log(clipped / (1 - clipped)) - np.log(thresholds / np.maximum(1 - thresholds, 1e-4))
    truth, said = labels.astype(bool), probabilities >= thresholds
    names = np.array(GOEMOTIONS_LABELS)

    def pick(wrong: npt.NDArray[np.bool_]) -> list[Mistake]:
        picked: list[Mistake] = []
        rows_seen: set[int] = set()
        labels_seen: dict[int, int] = {}
        for cell in np.argsort(np.where(wrong, -np.abs(distance), np.inf), axis=None, kind="stable")[: int(wrong.sum())]:
            row, label = divmod(int(cell), labels.shape[1])
            if row in rows_seen or labels_seen.get(label, 0) == per_label:
                continue
            rows_seen.add(row)
            labels_seen[label] = labels_seen.get(label, 0) + 1
            picked.append(Mistake(rows[row], str(names[label]), tuple(names[said[row]].tolist())))
            if len(picked) == count:
                break
        return picked

    return Mistakes(misses=pick(truth & ~said), false_alarms=pick(said & ~truth))
