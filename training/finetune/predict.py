"""The stage `predict`: logits of every split that is scored, once, to files that thresholds and evaluation read."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForSequenceClassification

from training.finetune.ask import ask
from training.finetune.encoding import encode, load_tokenizer
from training.finetune.prepared import read_split, scored_splits


def predict(*, model_folder: Path, prepared: Path, output: Path, max_tokens: int) -> dict[str, Any]:
    """Save float32 logits and multi-hot labels, each [rows, 28], of every split but train, as <split>.npz."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = AutoModelForSequenceClassification.from_pretrained(model_folder, dtype=torch.float32).to(device)
    tokenizer = load_tokenizer(str(model_folder), max_tokens=max_tokens)
    rows = {}
    for name in scored_splits(prepared):
        split = read_split(prepared, name)
        token_ids = encode(tokenizer, split.texts)
        logits = ask(model, token_ids, pad_id=model.config.pad_token_id, bf16=False, progress=name)["logits"]
        np.savez(output / f"{name}.npz", logits=logits, labels=split.labels)
        rows[name] = len(split.rows)
    return rows
