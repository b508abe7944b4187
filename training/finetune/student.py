"""The student: rubert-tiny2's architecture, started from a Hub checkpoint or from another model's embeddings."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import nn
from transformers import AutoConfig, AutoModelForSequenceClassification, BertConfig, BertForSequenceClassification

from training.config import ConfigError, ModelConfig, Places
from training.finetune.checkpoints import checkpoint_folder, load_encoder
from training.finetune.encoding import load_tokenizer
from training.finetune.vocabulary import PAD_TOKENS, own_vocabulary
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


def build_model(config: ModelConfig, places: Places, *, texts: Sequence[str]) -> tuple[nn.Module, Tokenizer]:
    """Build the model that the configuration names, with its tokenizer: a student, or the checkpoint `base` with a fresh head.

    The caller seeds torch.
    """
    if config.start_from or config.embeddings_from:
        return build_student(config, places, texts=texts)
    base = places.resolve(config.base)
    try:
        labelled = AutoConfig.from_pretrained(base, **label_settings())
        model: nn.Module = AutoModelForSequenceClassification.from_pretrained(base, config=labelled, dtype=torch.float32)
    except OSError as error:
        raise ConfigError(f"can't load model.base {base!r}: give a checkpoint's folder, or go online for the Hub") from error
    return model, _tokenizer(base, config)


def build_student(
    config: ModelConfig, places: Places, *, texts: Sequence[str]
) -> tuple[BertForSequenceClassification, Tokenizer]:
    """Build the student and its tokenizer: an earlier run's, or random layers over the PCA of another model's embeddings.

    `texts` are those it will be trained on, which a vocabulary of its own is chosen by. The caller seeds torch.
    """
    if config.start_from:
        folder = checkpoint_folder(places.resolve(config.start_from), setting="model.start_from")
        return _go_on_from(folder), _tokenizer(str(folder), config)
    if not config.embeddings_from:
        raise ConfigError("set model.embeddings_from to an encoder's folder or Hub name, or model.start_from to a student's")
    folder = checkpoint_folder(places.resolve(config.embeddings_from), setting="model.embeddings_from")
    donor, tokenizer = read_embeddings(folder), _tokenizer(str(folder), config)
    if config.vocabulary_size:
        vocabulary = own_vocabulary(tokenizer, texts, size=config.vocabulary_size)
        donor, tokenizer = replace(donor, words=donor.words[vocabulary.kept]), vocabulary.tokenizer
    reduced = reduce_embeddings(donor, width=config.hidden_size, std=config.embedding_std)
    model = BertForSequenceClassification(_student_config(config, reduced, pad_id=_pad_id(tokenizer)))
    embeddings = model.bert.embeddings
    with torch.no_grad():
        embeddings.word_embeddings.weight.copy_(reduced.words)
        embeddings.position_embeddings.weight.normal_(0.0, _LATE_POSITION_STD)
        count = min(len(reduced.positions), config.max_positions)
        embeddings.position_embeddings.weight[:count] = reduced.positions[:count]
        embeddings.token_type_embeddings.weight.copy_(reduced.token_types)
    return model, tokenizer


def _tokenizer(folder_or_name: str, config: ModelConfig) -> Tokenizer:
    return load_tokenizer(folder_or_name, max_tokens=config.max_tokens, fold_case=config.fold_case)


def _go_on_from(folder: Path) -> BertForSequenceClassification:
    """Load a student; a BERT without a head for these labels gets a fresh one."""
    kind = AutoConfig.from_pretrained(folder).model_type
    if kind != BertConfig.model_type:
        raise ConfigError(
            f"model.start_from names a model of the kind {kind!r}; a student is a BERT: name one, or embeddings_from"
        )
    return BertForSequenceClassification.from_pretrained(
        folder, dtype=torch.float32, ignore_mismatched_sizes=True, **label_settings()
    )


def _pad_id(tokenizer: Tokenizer) -> int:
    """Return the id that the tokenizer has for padding, whatever its model's configuration says; they need not agree.

    multilingual-e5-small's configuration says 0, which is its tokenizer's `<s>`; that row would never be trained.
    """
    found = [tokenizer.token_to_id(token) for token in PAD_TOKENS]
    known = [each for each in found if each is not None]
    if not known:
        raise ConfigError("the tokenizer of model.embeddings_from has neither <pad> nor [PAD]; name another model")
    return known[0]


@dataclass(frozen=True, slots=True)
class Embeddings:
    """An encoder's three embedding tables, float32 [entries, width]; `positions` begins with a text's first."""

    words: torch.Tensor
    positions: torch.Tensor
    token_types: torch.Tensor


def read_embeddings(folder: Path) -> Embeddings:
    """Read the embedding tables of an encoder's folder.

    Of a RoBERTa's or XLM-RoBERTa's positions the first rows go: theirs begin after the padding's id.
    """
    tables = getattr(load_encoder(folder), "embeddings", None)
    try:
        words, positions, token_types = (getattr(tables, f"{name}_embeddings") for name in ("word", "position", "token_type"))
    except AttributeError as error:
        raise ConfigError(
            f"{folder} has no embeddings of words, positions and token types; name a BERT, RoBERTa or XLM-RoBERTa"
        ) from error
    first = 0 if positions.padding_idx is None else positions.padding_idx + 1
    return Embeddings(words.weight.data, positions.weight.data[first:], token_types.weight.data)


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


def _student_config(config: ModelConfig, embeddings: Embeddings, *, pad_id: int) -> BertConfig:
    return BertConfig(
        vocab_size=len(embeddings.words),
        hidden_size=config.hidden_size,
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        intermediate_size=config.intermediate_size,
        max_position_embeddings=config.max_positions,
        type_vocab_size=len(embeddings.token_types),
        pad_token_id=pad_id,
        hidden_dropout_prob=config.dropout,
        attention_probs_dropout_prob=config.dropout,
        **label_settings(),
    )
