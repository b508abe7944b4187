"""Asking a model: logits, and the teacher's vectors, of many texts, in the order given."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from tokenizers import Tokenizer
from torch import nn
from tqdm import tqdm

from training.evaluation.metrics import macro_f1
from training.evaluation.support_chats import support_scores
from training.finetune.encoding import batches_by_token_count, encode, pad
from training.finetune.prepared import read_split, scored_splits
from training.finetune.trainer import has_fast_bf16
from training.thresholds.search import best_thresholds
from worker.core.scoring import probabilities_from_logits

FloatArray = npt.NDArray[np.float32]


def ask(
    model: nn.Module,
    token_ids: Sequence[Sequence[int]],
    *,
    pad_id: int,
    batch_size: int = 64,
    bf16: bool = True,
    progress: str | None = None,
) -> dict[str, FloatArray]:
    """Return every named output of the model as float32 [texts, ...]; a progress bar named `progress` if given.

    `bf16` uses bfloat16 only where the hardware has it. The longest texts go first, rows come back in order.
    """
    device = next(model.parameters()).device
    answers: dict[str, FloatArray] = {}
    model.eval()
    batches = list(batches_by_token_count(token_ids, batch_size=batch_size))
    autocast = torch.autocast(device.type, torch.bfloat16, enabled=bf16 and has_fast_bf16())
    with torch.inference_mode(), autocast:
        for rows in tqdm(batches, desc=progress, disable=progress is None):
            inputs = pad([token_ids[row] for row in rows], pad_id=pad_id)
            outputs: Any = model(**{name: tensor.to(device) for name, tensor in inputs.items()})
            for name, values in outputs.items():
                if name not in answers:
                    answers[name] = np.empty((len(token_ids), *values.shape[1:]), np.float32)
                answers[name][rows] = values.float().cpu().numpy()
    return answers


def validation_scorer(tokenizer: Tokenizer, prepared: Path, *, pad_id: int) -> Callable[[nn.Module], dict[str, float]]:
    """Return a scorer for comparing epochs: macro-F1 on validation, at 0.5 and with thresholds tuned on it.

    With those thresholds it also scores the corpora's tuning parts as support chats.
    """
    validation = read_split(prepared, "validation")
    tuning = [read_split(prepared, name) for name in scored_splits(prepared) if name.endswith("_tuning")]
    token_ids = [encode(tokenizer, split.texts) for split in (validation, *tuning)]

    def probabilities_of(model: nn.Module, index: int) -> npt.NDArray[np.float64]:
        return probabilities_from_logits(ask(model, token_ids[index], pad_id=pad_id, progress="score")["logits"])

    def score(model: nn.Module) -> dict[str, float]:
        probabilities = probabilities_of(model, 0)
        thresholds = best_thresholds(probabilities, validation.labels)
        scores = {
            "macro_f1": macro_f1(validation.labels, probabilities >= thresholds),
            "macro_f1_at_half": macro_f1(validation.labels, probabilities >= 0.5),
        }
        for index, split in enumerate(tuning, 1):
            support = support_scores(split.labels, probabilities_of(model, index) >= thresholds)
            scores |= {f"{split.rows[0].source}_{name}": support[name] for name in ("hostile_recall", "false_alarms")}
        return {name: round(value, 4) for name, value in scores.items()}

    return score
