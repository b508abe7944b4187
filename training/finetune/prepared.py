"""What the stage `prepare` left, as training reads it: rows, tokens, multi-hot labels, repeats."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from training.config import ConfigError, LossConfig
from training.data.prepare import GOEMOTIONS
from training.data.rows import Row, multi_hot, read_rows
from training.finetune.encoding import BucketBatches, TrainingBatches, TrainingRows
from training.finetune.loss import positive_weights


@dataclass(frozen=True, slots=True)
class Split:
    """Rows with their labels as multi-hot, [rows, 28]."""

    rows: list[Row]
    labels: npt.NDArray[np.float32]

    @property
    def texts(self) -> list[str]:
        return [row.text for row in self.rows]


def read_split(folder: Path, name: str) -> Split:
    """Read a split that `prepare` wrote; raises `ConfigError` where it did not."""
    path = folder / f"{name}.jsonl"
    if not path.exists():
        raise ConfigError(f"{path} is missing; run `python -m training prepare` with the same --config and --runs-dir first")
    rows = read_rows(path)
    return Split(rows, multi_hot(rows))


def scored_splits(folder: Path) -> list[str]:
    """Return the names of all splits that are predicted: validation, test, and each corpus's tuning and reporting."""
    return sorted(path.stem for path in folder.glob("*.jsonl") if path.stem != "train")


def goemotions_weights(split: Split, config: LossConfig) -> npt.NDArray[np.float32]:
    """Return the positive weights from GoEmotions' rows alone, whose label frequencies the scores are measured on."""
    base = np.array([row.source in GOEMOTIONS for row in split.rows])
    return positive_weights(split.labels[base] if base.any() else split.labels, config)


def repeats_of(rows: Sequence[Row], repeats: dict[str, int]) -> npt.NDArray[np.int64]:
    """Return how often an epoch shows each row, by its source; 1 where the source is not named."""
    return np.array([repeats.get(row.source, 1) for row in rows], np.int64)


def training_batches(
    split: Split,
    targets: dict[str, npt.NDArray[np.floating]],
    *,
    tokenizer: Tokenizer,
    pad_id: int,
    batch_size: int,
    seed: int,
    repeats: npt.NDArray[np.int64],
    noise_share: float,
) -> TrainingBatches:
    """Return the loader of a split's training batches."""
    dataset = TrainingRows(split.rows, tokenizer=tokenizer, targets=targets)
    batches = BucketBatches(
        dataset.count_tokens,
        batch_size=batch_size,
        seed=seed,
        repeats=repeats,
        noisy=np.array([row.language == "ru" for row in split.rows]),
        noise_share=noise_share,
    )
    return TrainingBatches(dataset, batches, pad_id=pad_id)
