"""Saved logits as thresholds and evaluation read them: the worker's probabilities beside multi-hot labels."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from training.config import ConfigError
from training.evaluation.predictions import CHATS_PREFIX
from worker.core.scoring import Calibration, probabilities_from_logits


@dataclass(frozen=True, slots=True)
class Scored:
    """Probabilities (rounded as the worker rounds them) and multi-hot labels, each [rows, 28], in GoEmotions' order."""

    probabilities: npt.NDArray[np.float64]
    labels: npt.NDArray[np.float32]


def read_scored(folder: Path, split: str) -> Scored:
    """Read a split's logits that `predict` saved, as probabilities, and its labels."""
    with np.load(_existing(folder, split), allow_pickle=False) as saved:
        return Scored(probabilities_from_logits(saved["logits"]), saved["labels"])


def read_calibrated(folder: Path, split: str, calibration: Calibration | None) -> Scored:
    """Read a split's logits as calibrated probabilities (plain ones where there is no calibration), and its labels."""
    with np.load(_existing(folder, split), allow_pickle=False) as saved:
        logits = saved["logits"] if calibration is None else calibration.logits(saved["logits"])
        return Scored(probabilities_from_logits(logits), saved["labels"])


def read_logits(folder: Path, split: str) -> npt.NDArray[np.float32]:
    """Read a split's logits that `predict` saved, [rows, 28]."""
    with np.load(_existing(folder, split), allow_pickle=False) as saved:
        logits: npt.NDArray[np.float32] = saved["logits"]
        return logits


def _existing(folder: Path, split: str) -> Path:
    path = folder / f"{split}.npz"
    if not path.exists():
        raise ConfigError(f"{path} is missing; run `python -m training predict` with this --config first")
    return path


def saved_splits(folder: Path, *, suffix: str) -> list[str]:
    """Return the corpora that have a split of this kind, e.g. `tuning`, by name; files of whole chats are no splits."""
    found = [path.stem for path in folder.glob(f"*_{suffix}.npz") if not path.stem.startswith(CHATS_PREFIX)]
    return sorted(stem.removesuffix(f"_{suffix}") for stem in found)
