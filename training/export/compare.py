"""The stage `export` and the command `compare-exports`: the student as ONNX, in int8, checked against torch."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from training.config import ConfigError
from training.evaluation.saved_logits import read_logits
from training.export.onnx_export import export_onnx, load_for_export
from training.export.parity import Parity, ParityRows, compare_with_torch, feeds_of
from training.export.quantise import quantise_blocks, quantise_dynamic, quantise_static
from training.finetune.encoding import encode, load_tokenizer
from training.finetune.prepared import read_split
from worker.inference.model_bundle import ONNX_NAME

FLOAT_NAME, PARITY_NAME, COMPARISON_NAME = "float.onnx", "parity.json", "comparison.md"
WAYS = ("dynamic", "static", "block32", "block64")
MIN_AGREEMENT = 0.99
MAX_BATCH_DEPENDENCE = 0.001
_CALIBRATION_BATCHES = 64
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


def export(trained: Trained, *, way: str, output: Path, threads: int) -> dict[str, Any]:
    """Write model.onnx, quantised in the given way, and its parity with torch on the test split.

    Raises `ConfigError` where fewer than 99 % of the labels agree or where a probability depends on the batch.
    """
    model = load_for_export(trained.model)
    export_onnx(model, output / FLOAT_NAME)
    quantise(output / FLOAT_NAME, output / ONNX_NAME, way=way, trained=trained, pad_id=model.config.pad_token_id)
    parity = compare_with_torch(
        output / ONNX_NAME, _test_rows(trained, pad_id=model.config.pad_token_id), threads=threads, seed=trained.seed
    )
    (output / PARITY_NAME).write_text(json.dumps({"way": way, **parity.rounded()}, indent=1) + "\n", "utf-8")
    if parity.cell_agreement < MIN_AGREEMENT or parity.batch_dependence > MAX_BATCH_DEPENDENCE:
        raise ConfigError(
            f"bundle.quantisation = {way!r} gives {parity.cell_agreement:.2%} of torch's labels and moves a probability by "
            f"{parity.batch_dependence:.4f} with its batch; at least {MIN_AGREEMENT:.0%} and at most {MAX_BATCH_DEPENDENCE} "
            "are asked: choose another, see `python -m training compare-exports`"
        )
    return {"way": way, **parity.rounded()}


def compare_exports(trained: Trained, *, output: Path, threads: int) -> str:
    """Export in every way and return the table, also written to comparison.md."""
    output.mkdir(parents=True, exist_ok=True)
    model = load_for_export(trained.model)
    pad_id = model.config.pad_token_id
    export_onnx(model, output / FLOAT_NAME)
    rows = _test_rows(trained, pad_id=pad_id)
    measured = {"float32": compare_with_torch(output / FLOAT_NAME, rows, threads=threads, seed=trained.seed)}
    for way in WAYS:
        path = output / f"{way}.onnx"
        quantise(output / FLOAT_NAME, path, way=way, trained=trained, pad_id=pad_id)
        measured[way] = compare_with_torch(path, rows, threads=threads, seed=trained.seed)
    table = comparison_table(measured)
    (output / COMPARISON_NAME).write_text(table, "utf-8")
    return table


def quantise(source: Path, target: Path, *, way: str, trained: Trained, pad_id: int) -> None:
    """Quantise a float32 graph in one of `WAYS`."""
    if way == "dynamic":
        quantise_dynamic(source, target)
    elif way == "static":
        quantise_static(source, target, calibration=_calibration(trained, pad_id=pad_id))
    elif way in WAYS:
        quantise_blocks(source, target, block_size=int(way.removeprefix("block")))
    else:
        raise ConfigError(f"bundle.quantisation {way!r} is not known; choose one of {', '.join(WAYS)}")


def comparison_table(measured: dict[str, Parity]) -> str:
    """Return the comparison in Markdown."""
    lines = [
        "| export | MB | labels as torch | rows as torch | macro-F1 − torch's | max Δp by batch | labels flipped by batch "
        "| messages/s, 64 together | messages/s, alone |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for way, each in measured.items():
        lines.append(
            f"| {way} | {each.megabytes:.1f} | {each.cell_agreement:.2%} | {each.row_agreement:.2%} "
            f"| {each.macro_f1_difference:+.4f} | {each.batch_dependence:.4f} | {each.batch_flips} "
            f"| {each.messages_per_s:.0f} | {each.messages_per_s_alone:.0f} |"
        )
    return "\n".join(lines) + "\n"


def _test_rows(trained: Trained, *, pad_id: int) -> ParityRows:
    split = read_split(trained.prepared, "test")
    tokenizer = load_tokenizer(str(trained.model), max_tokens=trained.max_tokens)
    logits = read_logits(trained.predicted, "test")
    return ParityRows(encode(tokenizer, split.texts), split.labels, logits, trained.thresholds, pad_id)


def _calibration(trained: Trained, *, pad_id: int) -> list[dict[str, npt.NDArray[np.int64]]]:
    """Return padded batches of training texts drawn at random."""
    texts = read_split(trained.prepared, "train").texts
    count = min(len(texts), _CALIBRATION_BATCHES * _CALIBRATION_BATCH)
    drawn = np.random.default_rng(trained.seed).choice(len(texts), count, replace=False)
    tokenizer = load_tokenizer(str(trained.model), max_tokens=trained.max_tokens)
    token_ids = encode(tokenizer, [texts[index] for index in drawn])
    starts = range(0, count, _CALIBRATION_BATCH)
    return [feeds_of(token_ids[start : start + _CALIBRATION_BATCH], pad_id=pad_id) for start in starts]
