"""A teacher's answers, kept once: what it said of a text is found again by the teacher's and the text's digest."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from training.config import ConfigError
from training.data.rows import Row, read_rows
from training.finetune.domain_shift import read_shift
from worker.inference.model_bundle import file_digest

TAUGHT_ROWS = "rows.jsonl"


@dataclass(frozen=True, slots=True)
class Answers:
    """Logits float16 [rows, 28], pooled vectors float16 [rows, width], and a key a row, [rows] of 32 hex characters."""

    logits: npt.NDArray[np.float16]
    vectors: npt.NDArray[np.float16]
    keys: npt.NDArray[np.bytes_]

    def write(self, folder: Path) -> None:
        """Write the three arrays as .npy."""
        for name, values in (("logits", self.logits), ("vectors", self.vectors), ("keys", self.keys)):
            np.save(folder / f"{name}.npy", values, allow_pickle=False)


def read_answers(folder: Path) -> Answers:
    """Read what `Answers.write` wrote; raises `ConfigError` where nothing was."""
    try:
        return Answers(*(np.load(folder / f"{name}.npy", allow_pickle=False) for name in ("logits", "vectors", "keys")))
    except OSError as error:
        raise _no_answers(folder) from error


def read_taught_rows(folder: Path) -> list[Row]:
    """Read the rows that a teacher answered, in the answers' order; raises `ConfigError` where there are none."""
    try:
        return read_rows(folder / TAUGHT_ROWS)
    except OSError as error:
        raise _no_answers(folder) from error


def _no_answers(folder: Path) -> ConfigError:
    return ConfigError(f"{folder} has no teacher's answers; run `python -m training teach` with that run's --config first")


def answer_keys(teacher_folder: Path, texts: Sequence[str]) -> npt.NDArray[np.bytes_]:
    """Return the key of each text's answer by the teacher in this folder."""
    weights = sorted(teacher_folder.rglob("*.safetensors"))
    teacher = hashlib.sha256("".join(file_digest(path) for path in weights).encode()).hexdigest()
    return np.array([hashlib.sha256(f"{teacher}\n{text}".encode()).hexdigest()[:32] for text in texts], "S32")


def known_answers(keys: npt.NDArray[np.bytes_], folders: Sequence[Path]) -> dict[int, tuple[Answers, int]]:
    """Return, by the number of a key, where earlier answers hold it, before any shift of their logits."""
    known: dict[bytes, tuple[Answers, int]] = {}
    for folder in folders:
        aligned = read_answers(folder)
        shift = read_shift(folder, read_taught_rows(folder))
        earlier = replace(aligned, logits=(aligned.logits - shift).astype(np.float16))
        known |= {key: (earlier, row) for row, key in enumerate(earlier.keys.tolist())}
    return {number: known[key] for number, key in enumerate(keys.tolist()) if key in known}
