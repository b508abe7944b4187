"""Asking a model: logits, and the teacher's vectors, of many texts, in the order given."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from tqdm import tqdm

from training.evaluation.metrics import macro_f1
from training.finetune.encoding import batches_by_token_count, pad
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


def validation_scorer(
    token_ids: Sequence[Sequence[int]], labels: npt.NDArray[Any], *, pad_id: int
) -> Callable[[nn.Module], dict[str, float]]:
    """Return a scorer: macro-F1 on these rows with thresholds tuned on them, and at 0.5. For comparing epochs only."""

    def score(model: nn.Module) -> dict[str, float]:
        probabilities = probabilities_from_logits(ask(model, token_ids, pad_id=pad_id)["logits"])
        tuned = macro_f1(labels, probabilities >= best_thresholds(probabilities, labels))
        return {"macro_f1": round(tuned, 4), "macro_f1_at_half": round(macro_f1(labels, probabilities >= 0.5), 4)}

    return score
