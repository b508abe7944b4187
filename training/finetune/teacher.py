"""The teacher: an encoder such as BERT or XLM-RoBERTa, mean-pooled, with a linear head, and how it is kept."""

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch import nn
from transformers import PreTrainedModel

from training.config import ConfigError
from training.finetune.checkpoints import ENCODER_FOLDER, load_encoder
from worker.core.labels import GOEMOTIONS_LABELS

HEAD_FILE = "head.safetensors"


class Teacher(nn.Module):
    """An encoder whose last hidden states are averaged over the real tokens before a linear head.

    Returns `logits` [texts, 28] and `vectors` [texts, width], the average itself.
    """

    def __init__(self, encoder: PreTrainedModel, head: nn.Linear) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = head
        self.dropout = nn.Dropout(0.1)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> dict[str, torch.Tensor]:
        hidden = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        mask = attention_mask.unsqueeze(-1).to(hidden.dtype)
        vectors = (hidden * mask).sum(1) / mask.sum(1)
        return {"logits": self.head(self.dropout(vectors)), "vectors": vectors}


def encoder_folder(folder: Path) -> Path:
    """Return where a teacher's encoder and tokenizer lie; a plain encoder's folder is its own."""
    return folder / ENCODER_FOLDER if (folder / ENCODER_FOLDER).is_dir() else folder


def load_teacher(folder: Path, *, attention_dropout: float = 0.1) -> Teacher:
    """Load encoder/ and head.safetensors as float32; a plain encoder's folder gets a fresh head."""
    source = encoder_folder(folder)
    if not (source / "config.json").exists():
        raise ConfigError(f"no teacher at {folder}: it needs encoder/ and {HEAD_FILE}; check teacher.folder and --models-dir")
    encoder = load_encoder(source, attention_probs_dropout_prob=attention_dropout)
    head = nn.Linear(encoder.config.hidden_size, len(GOEMOTIONS_LABELS))
    if (folder / HEAD_FILE).exists():
        head.load_state_dict(load_file(folder / HEAD_FILE))
    return Teacher(encoder, head)


def save_teacher(teacher: Teacher, folder: Path, *, tokenizer: Tokenizer) -> None:
    """Write the teacher as `load_teacher` reads it; in place, the encoder becomes half precision and truncation goes."""
    (folder / ENCODER_FOLDER).mkdir(parents=True, exist_ok=True)
    head = {name: value.contiguous().float() for name, value in teacher.head.state_dict().items()}
    save_file(head, folder / HEAD_FILE)
    teacher.encoder.half().save_pretrained(folder / ENCODER_FOLDER)
    tokenizer.no_truncation()
    tokenizer.save(str(folder / ENCODER_FOLDER / "tokenizer.json"))
