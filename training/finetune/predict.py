"""The stage `predict`: logits of every text that is scored, once, to files that thresholds and evaluation read."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from transformers import AutoModelForSequenceClassification

from training.evaluation.predictions import save_predictions
from training.finetune.ask import ask
from training.finetune.encoding import encode, load_tokenizer


def predict(*, model_folder: Path, prepared: Path, chats: Sequence[Path], output: Path, max_tokens: int) -> dict[str, Any]:
    """Save float32 logits of every split but train, of its noised copies, and of whole chats."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = AutoModelForSequenceClassification.from_pretrained(model_folder, dtype=torch.float32).to(device)
    tokenizer = load_tokenizer(str(model_folder), max_tokens=max_tokens)

    def logits_of(texts: Sequence[str], name: str) -> npt.NDArray[np.float32]:
        token_ids = encode(tokenizer, texts)
        return ask(model, token_ids, pad_id=model.config.pad_token_id, bf16=False, progress=name)["logits"]

    return save_predictions(logits_of, prepared=prepared, chats=chats, output=output)
