"""A row of a corpus, how it is kept in JSONL, and how rows become multi-hot labels."""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from worker.core.labels import GOEMOTIONS_LABELS

LABEL_INDEX = {label: index for index, label in enumerate(GOEMOTIONS_LABELS)}


@dataclass(frozen=True, slots=True)
class Row:
    """One labelled text. `source` names its corpus; `comment_id` is GoEmotions' own, or the scenario's."""

    text: str
    labels: tuple[str, ...]
    source: str
    language: str = "ru"
    comment_id: str = ""


def multi_hot(rows: Sequence[Row]) -> npt.NDArray[np.float32]:
    """Return labels as 0/1, shape [rows, 28], columns in GoEmotions' order."""
    hot = np.zeros((len(rows), len(GOEMOTIONS_LABELS)), np.float32)
    for index, row in enumerate(rows):
        hot[index, [LABEL_INDEX[label] for label in row.labels]] = 1.0
    return hot


def label_support(rows: Iterable[Row]) -> dict[str, int]:
    """Return how many rows have each label, in GoEmotions' order."""
    counted = Counter(label for row in rows for label in row.labels)
    return {label: counted[label] for label in GOEMOTIONS_LABELS}


def write_rows(path: Path, rows: Iterable[Row]) -> None:
    """Write rows as JSONL."""
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(asdict(row), ensure_ascii=False) + "\n" for row in rows)


def read_rows(path: Path) -> list[Row]:
    """Read rows that `write_rows` wrote."""
    with path.open(encoding="utf-8") as file:
        values = [json.loads(line) for line in file]
    return [Row(**{**value, "labels": tuple(value["labels"])}) for value in values]
