"""The student: rubert-tiny2's architecture, started from a Hub checkpoint or from another model's embeddings."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn
from transformers import AutoConfig, AutoModelForSequenceClassification, BertConfig, BertForSequenceClassification

from training.config import ConfigError, ModelConfig, Places
from worker.core.labels import GOEMOTIONS_LABELS

_LATE_POSITION_STD = 0.005


def label_settings() -> dict[str, Any]:
    """Return what a Hugging Face configuration says of the labels."""
    return {
        "num_labels": len(GOEMOTIONS_LABELS),
        "id2label": dict(enumerate(GOEMOTIONS_LABELS)),
        "label2id": {label: index for index, label in enumerate(GOEMOTIONS_LABELS)},
        "problem_type": "multi_label_classification",
    }


def load_for_finetuning(base: str) -> nn.Module:
    """Load any checkpoint with a fresh multi-label head."""
    try:
        config = AutoConfig.from_pretrained(base, **label_settings())
        model: nn.Module = AutoModelForSequenceClassification.from_pretrained(base, config=config, dtype=torch.float32)
    except OSError as error:
        raise ConfigError(f"can't load model.base {base!r}: give a checkpoint's folder, or go online for the Hub") from error
    return model


def tokenizer_source(config: ModelConfig, places: Places) -> str:
    """Return the folder or Hub name whose tokenizer the student uses."""
    return places.resolve(config.start_from or config.embeddings_from or config.base)


def build_student(config: ModelConfig, places: Places) -> BertForSequenceClassification:
    """Build the student: an earlier run's, or random layers over the PCA of another model's embeddings.

    The caller seeds torch.
    """
    if config.start_from:
        return BertForSequenceClassification.from_pretrained(places.resolve(config.start_from), dtype=torch.float32)
    if not config.embeddings_from:
        raise ConfigError("set model.embeddings_from to a BertModel folder, or model.start_from to a student's")
    folder = Path(places.resolve(config.embeddings_from))
    donor = read_embeddings(folder)
    model = BertForSequenceClassification(_student_config(config, BertConfig.from_pretrained(folder)))
    reduced = reduce_embeddings(donor, width=config.hidden_size, std=config.embedding_std)
    embeddings = model.bert.embeddings
    with torch.no_grad():
        embeddings.word_embeddings.weight.copy_(reduced.words)
        embeddings.position_embeddings.weight.normal_(0.0, _LATE_POSITION_STD)
        count = min(len(reduced.positions), config.max_positions)
        embeddings.position_embeddings.weight[:count] = reduced.positions[:count]
        embeddings.token_type_embeddings.weight.copy_(reduced.token_types)
    return model


@dataclass(frozen=True, slots=True)
class Embeddings:
    """A BERT's three embedding tables, float32 [entries, width]."""

    words: torch.Tensor
    positions: torch.Tensor
    token_types: torch.Tensor


def read_embeddings(folder: Path) -> Embeddings:
    """Read the embedding tables of a BertModel folder."""
    weights = load_file(folder / "model.safetensors")
    tables = [weights[f"embeddings.{name}_embeddings.weight"].float() for name in ("word", "position", "token_type")]
    return Embeddings(*tables)


def reduce_embeddings(donor: Embeddings, *, width: int, std: float) -> Embeddings:
    """Project every table on the word table's first `width` principal axes.

    Each table is centred on its own mean (a shift common to all tokens says nothing), and all share one scale, which gives
    the words the standard deviation `std`, so that words and positions keep their proportion.
    """
    words = donor.words - donor.words.mean(0)
    if width > words.shape[1]:
        raise ConfigError(f"hidden_size {width} is above the donor's {words.shape[1]}; PCA can only reduce")
    _, axes = torch.linalg.eigh((words.T @ words).double())  # ascending eigenvalues
    axes = axes.flip(1)[:, :width].float()
    scale = std / (words @ axes).std()
    positions = donor.positions - donor.positions.mean(0)
    token_types = donor.token_types - donor.token_types.mean(0)
    return Embeddings(words @ axes * scale, positions @ axes * scale, token_types @ axes * scale)


def _student_config(config: ModelConfig, donor: BertConfig) -> BertConfig:
    return BertConfig(
        vocab_size=donor.vocab_size,
        hidden_size=config.hidden_size,
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        intermediate_size=config.intermediate_size,
        max_position_embeddings=config.max_positions,
        type_vocab_size=donor.type_vocab_size,
        pad_token_id=donor.pad_token_id,
        hidden_dropout_prob=config.dropout,
        attention_probs_dropout_prob=config.dropout,
        **label_settings(),
    )
