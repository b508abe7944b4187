"""Checkpoints made elsewhere: a local folder, or one downloaded from the Hub, and the encoder in it."""

import inspect
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from transformers import MODEL_MAPPING, AutoConfig, PreTrainedModel

from training.config import ConfigError

ENCODER_FOLDER = "encoder"

_TEXT_FILES = (
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "sentencepiece.bpe.model",
    "*.safetensors.index.json",
)
_NEEDED = (*_TEXT_FILES, *(f"{ENCODER_FOLDER}/{name}" for name in _TEXT_FILES), "*.safetensors")


def checkpoint_folder(name: str, *, setting: str) -> Path:
    """Return a local folder as it is, or the folder of a model on the Hub, which is downloaded where need be.

    Weights are taken in safetensors only. `setting` is what the configuration calls it, for the `ConfigError`.
    """
    folder = Path(name)
    if not folder.is_dir():
        try:
            folder = Path(snapshot_download(name, allow_patterns=list(_NEEDED)))
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"{setting} {name!r} is no folder, and the Hub gives no model of that name; mend the path (--models-dir and "
                f"--runs-dir are part of it) or the name, or go online ({error})"
            ) from error
    if not any(folder.rglob("*.safetensors")):
        raise ConfigError(f"{setting} {name!r} has no weights in safetensors; convert them, or name another model")
    return folder


def load_encoder(folder: Path, **settings: Any) -> PreTrainedModel:
    """Load an encoder as float32, without a pooler where its kind allows that; `settings` overrule its configuration."""
    try:
        config = AutoConfig.from_pretrained(folder, **settings)
        kind = MODEL_MAPPING[type(config)]
        without = {"add_pooling_layer": False} if "add_pooling_layer" in inspect.signature(kind).parameters else {}
        encoder, loaded = kind.from_pretrained(folder, config=config, dtype=torch.float32, output_loading_info=True, **without)
    except (OSError, ValueError, KeyError) as error:
        raise ConfigError(
            f"can't load an encoder from {folder}; name one like BERT, RoBERTa or XLM-RoBERTa ({error})"
        ) from error
    missing = sorted(key for key in loaded["missing_keys"] if "pooler" not in key)
    if missing:
        raise ConfigError(f"{folder} lacks weights of its encoder, {missing[0]} for one; name a whole checkpoint")
    return encoder
