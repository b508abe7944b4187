"""The stage `export` and the command `compare-exports`: the student as ONNX, in int8, checked against torch."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from training.config import ConfigError, Quantisation
from training.evaluation.saved_logits import read_logits
from training.export.onnx_export import export_onnx, load_for_export
from training.export.parity import (
    Parity,
    ParityRows,
    Speeds,
    compare_with_torch,
    feeds_of,
    logit_difference,
    measure_speeds,
)
from training.export.quantise import Feeds, quantise_blocks, quantise_dynamic, quantise_static
from training.export.short_graph import export_short
from training.export.token_int8 import quantise_tokens
from training.finetune.encoding import encode, load_tokenizer
from training.finetune.prepared import read_split
from worker.inference.model_bundle import ONNX_NAME

FLOAT_NAME, SHORT_NAME, PARITY_NAME, COMPARISON_NAME = "float.onnx", "short.onnx", "parity.json", "comparison.md"
WAYS: tuple[Quantisation, ...] = get_args(Quantisation)
YARDSTICK = "dynamic"
MIN_AGREEMENT = 0.995
MAX_BATCH_DEPENDENCE = 0.001
MAX_SHORT_DIFFERENCE = 1e-4
_CALIBRATION_BATCHES = 256
_CALIBRATION_BATCH = 16


@dataclass(frozen=True, slots=True)
class Trained:
    """What an export starts from: the run's folders and its thresholds."""

    model: Path
    prepared: Path
    predicted: Path
    thresholds: npt.NDArray[np.float64]
    max_tokens: int
    seed: int


def export(trained: Trained, *, way: Quantisation, output: Path, threads: int) -> dict[str, Any]:
    """Write model.onnx in the given way, and its parity with torch on the test split.

    Raises `ConfigError` where fewer than 99.5 % of the labels agree, where a probability depends on the batch, or where the
    short graph's logits in float32 aren't the whole model's.
    """
    exporter = _Exporter(trained, output, load_for_export(trained.model))
    exporter.export(output / ONNX_NAME, way=way)
    rows = _test_rows(trained, pad_id=exporter.pad_id)
    found: dict[str, Any] = {"way": way}
    if way.startswith("short"):
        found["float_difference"] = exporter.check_short(rows)
    parity = compare_with_torch(output / ONNX_NAME, rows, threads=threads, seed=trained.seed)
    found |= parity.rounded()
    (output / PARITY_NAME).write_text(json.dumps(found, indent=1) + "\n", "utf-8")
    if parity.cell_agreement < MIN_AGREEMENT or parity.batch_dependence > MAX_BATCH_DEPENDENCE:
        raise ConfigError(
            f"bundle.quantisation = {way!r} gives {parity.cell_agreement:.2%} of torch's labels and moves a probability by "
            f"{parity.batch_dependence:.4f} with its batch; at least {MIN_AGREEMENT:.1%} and at most {MAX_BATCH_DEPENDENCE} "
            "are asked: choose another, see `python -m training compare-exports`"
        )
    return found


def compare_exports(trained: Trained, *, output: Path, threads: int) -> str:
    """Export in every way and return the table, also written to comparison.md."""
    output.mkdir(parents=True, exist_ok=True)
    exporter = _Exporter(trained, output, load_for_export(trained.model))
    paths = {"float32": exporter.whole()}
    for way in WAYS:
        paths[way] = output / f"{way}.onnx"
        exporter.export(paths[way], way=way)
    rows = _test_rows(trained, pad_id=exporter.pad_id)
    measured = {
        way: compare_with_torch(path, rows, threads=threads, seed=trained.seed)
        for way, path in tqdm(paths.items(), "comparing")
    }
    speeds = measure_speeds(paths, rows, threads=threads)
    table = comparison_table(measured, speeds)
    (output / COMPARISON_NAME).write_text(table, "utf-8")
    return table


class _Exporter:
    """Writes a trained student's graphs; those in float32, which others are made of, once."""

    def __init__(self, trained: Trained, output: Path, model: Any) -> None:
        self._trained, self._output, self._model = trained, output, model
        self.pad_id: int = model.config.pad_token_id
        self._written: set[str] = set()

    def whole(self) -> Path:
        """Return the whole graph in float32."""
        path = self._output / FLOAT_NAME
        if FLOAT_NAME not in self._written:
            export_onnx(self._model, path)
            self._written.add(FLOAT_NAME)
        return path

    def short(self) -> Path:
        """Return the short graph in float32 but for its word table."""
        path = self._output / SHORT_NAME
        if SHORT_NAME not in self._written:
            export_short(self._model, path, max_tokens=self._trained.max_tokens, half_words=True)
            self._written.add(SHORT_NAME)
        return path

    def export(self, target: Path, *, way: Quantisation) -> None:
        """Write the graph of one of `WAYS`."""
        if way == "dynamic":
            quantise_dynamic(self.whole(), target)
        elif way == "static":
            quantise_static(self.whole(), target, calibration=self._calibration())
        elif way.startswith("block"):
            quantise_blocks(self.whole(), target, block_size=int(way.removeprefix("block")))
        elif way == "short_float":
            shutil.copyfile(self.short(), target)
        elif way == "short_block64":
            quantise_blocks(self.short(), target, block_size=64)
        else:
            quantise_tokens(self.short(), target, calibration=self._calibration())

    def check_short(self, rows: ParityRows) -> float:
        """Return by how much a logit of the short graph in float32 differs from torch's at most, as a share of the largest.

        Raises `ConfigError` where that is more than rounding.
        """
        path = self._output / "short-float.onnx"
        export_short(self._model, path, max_tokens=self._trained.max_tokens, half_words=False)
        difference = logit_difference(path, rows)
        path.unlink()
        if difference > MAX_SHORT_DIFFERENCE:
            raise ConfigError(
                f"the short graph's logits differ from torch's by {difference:.1e} of the largest: this model is no BERT as "
                "the short graph knows it; set bundle.quantisation to block64"
            )
        return difference

    def _calibration(self) -> list[Feeds]:
        """Return padded batches of training texts drawn at random."""
        texts = read_split(self._trained.prepared, "train").texts
        count = min(len(texts), _CALIBRATION_BATCHES * _CALIBRATION_BATCH)
        drawn = np.random.default_rng(self._trained.seed).choice(len(texts), count, replace=False)
        tokenizer = load_tokenizer(str(self._trained.model), max_tokens=self._trained.max_tokens)
        token_ids = encode(tokenizer, [texts[index] for index in drawn])
        starts = range(0, count, _CALIBRATION_BATCH)
        return [feeds_of(token_ids[start : start + _CALIBRATION_BATCH], pad_id=self.pad_id) for start in starts]


def comparison_table(measured: dict[str, Parity], speeds: dict[str, Speeds]) -> str:
    """Return the comparison in Markdown; speeds also as shares of the yardstick's."""
    lines = [
        "| export | MB | labels as torch | rows as torch | macro-F1 − torch's | max Δp by batch | labels flipped by batch "
        "| messages/s in polls of 256 | alone |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    yardstick = speeds[YARDSTICK]
    for way, each in measured.items():
        polls, alone = speeds[way].polls, speeds[way].alone
        lines.append(
            f"| {way} | {each.megabytes:.1f} | {each.cell_agreement:.2%} | {each.row_agreement:.2%} "
            f"| {each.macro_f1_difference:+.4f} | {each.batch_dependence:.4f} | {each.batch_flips} "
            f"| {polls:.0f} ({polls / yardstick.polls:.2f}) | {alone:.0f} ({alone / yardstick.alone:.2f}) |"
        )
    return "\n".join(lines) + "\n"


def _test_rows(trained: Trained, *, pad_id: int) -> ParityRows:
    split = read_split(trained.prepared, "test")
    tokenizer = load_tokenizer(str(trained.model), max_tokens=trained.max_tokens)
    logits = read_logits(trained.predicted, "test")
    return ParityRows(encode(tokenizer, split.texts), split.labels, logits, trained.thresholds, pad_id)
