"""One set of thresholds for two domains: the teacher's logits on the corpora, shifted to where GoEmotions' thresholds fit.

Thresholds come from GoEmotions, where labels are rarer and vaguer than in support chats: what is a fair cut for one is far
off for the other, and the worker has only one threshold a label. So the teacher's own best thresholds on the corpora's
tuning parts are found, and its logits on the corpora's texts are moved, label by label, until those fall on GoEmotions'
ones. The student learns the moved answers. A shift of the logits is what another prior of the label does (Menon et al.
2021, "Long-tail learning via logit adjustment").
"""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from training.data.prepare import GOEMOTIONS
from training.data.rows import Row
from training.evaluation.saved_logits import Scored
from training.evaluation.support_chats import HOSTILE, columns
from training.finetune.variations import VARIED
from training.thresholds.hostile import HostileLimits, move_hostile_thresholds
from training.thresholds.search import shrunk_thresholds
from worker.core.labels import GOEMOTIONS_LABELS

SHIFT_NAME = "shift.json"
_LIMIT = 2.5
_SHRINKAGE, _MIN_SUPPORT = 5.0, 10

FloatArray = npt.NDArray[np.float64]


def find_shift(tuning: Scored, thresholds: FloatArray, *, max_false_alarms: float) -> FloatArray:
    """Return what to add to the teacher's logits, [28], so that its best decisions on `tuning` are made by `thresholds`.

    Best is F1 for each label, and for the hostile ones together most hostile rows found at few false alarms.
    """
    own = shrunk_thresholds(tuning.probabilities, tuning.labels, shrinkage=_SHRINKAGE, min_support=_MIN_SUPPORT)
    own = np.where(tuning.labels.sum(0) < _MIN_SUPPORT, thresholds, own)
    limits = HostileLimits(max_false_alarms=max_false_alarms, max_macro_loss=np.inf)
    hostile = move_hostile_thresholds(own, tuning, validation=tuning, limits=limits)
    own = np.where(columns(HOSTILE), hostile, own)
    return np.clip(_logits(thresholds) - _logits(own), -_LIMIT, _LIMIT)


def write_shift(shift: FloatArray, folder: Path) -> None:
    """Write shift.json: a number of logits a label."""
    named = dict(zip(GOEMOTIONS_LABELS, np.round(shift, 4).tolist(), strict=True))
    (folder / SHIFT_NAME).write_text(json.dumps(named, indent=1) + "\n", "utf-8")


def read_shift(folder: Path, rows: Sequence[Row]) -> FloatArray:
    """Return the shift of every row's logits, [rows, 28]: nothing for GoEmotions' rows, or where none was found."""
    path = folder / SHIFT_NAME
    named = json.loads(path.read_text("utf-8")) if path.exists() else {}
    shift = np.array([named.get(label, 0.0) for label in GOEMOTIONS_LABELS])
    return np.where(is_goemotions(rows)[:, None], 0.0, shift)


def is_goemotions(rows: Sequence[Row]) -> npt.NDArray[np.bool_]:
    """Return which rows are GoEmotions' or variations of them, [rows]."""
    return np.array([row.source.removesuffix(VARIED) in GOEMOTIONS for row in rows])


def _logits(probabilities: FloatArray) -> FloatArray:
    return np.asarray(np.log(probabilities / (1 - probabilities)))
