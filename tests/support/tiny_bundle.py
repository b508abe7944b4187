"""A bundle small enough to make in a test, whose model does what the test says: each known word speaks for one label."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from worker.core.labels import GOEMOTIONS_LABELS
from worker.inference.model_bundle import MANIFEST_NAME, ONNX_NAME, TOKENIZER_NAME, Manifest, file_digest

WORDS: dict[str, str] = {
    "спасибо": "gratitude",
    "злюсь": "anger",
    "раздражает": "annoyance",
    "мерзость": "disgust",
    "зря": "disappointment",
    "неправильно": "disapproval",
    "грустно": "sadness",
    "страшно": "fear",
    "почему": "curiosity",
    "рада": "joy",
}
POISON_WORD = "отрава"
_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
_BIAS = -4.0
_PULL = 10.0  # a word's label gets the logit 6, the others keep -4


def make_tiny_bundle(folder: Path, *, words: Mapping[str, str] = WORDS, max_tokens: int = 32) -> Path:
    """Write a bundle in which every word of `words` lifts its label over the threshold, and `POISON_WORD` breaks the model."""
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = {token: index for index, token in enumerate((*_SPECIAL, *words, POISON_WORD))}
    _write_tokenizer(folder / TOKENIZER_NAME, vocabulary)
    _write_model(folder / ONNX_NAME, vocabulary, words)
    manifest = Manifest(
        name="tiny-words",
        version="0",
        architecture={},
        labels=GOEMOTIONS_LABELS,
        activation="sigmoid",
        thresholds=dict.fromkeys(GOEMOTIONS_LABELS, 0.5),
        max_tokens=max_tokens,
        pad_token_id=0,
        files={name: file_digest(folder / name) for name in (ONNX_NAME, TOKENIZER_NAME)},
        base="none",
        data=[],
        config={},
        versions={},
        metrics={},
    )
    (folder / MANIFEST_NAME).write_text(json.dumps(manifest.model_dump(mode="json")), encoding="utf-8")
    return folder


def _write_tokenizer(path: Path, vocabulary: dict[str, int]) -> None:
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", vocabulary["[CLS]"]), ("[SEP]", vocabulary["[SEP]"])]
    )
    tokenizer.save(str(path))


def _write_model(path: Path, vocabulary: dict[str, int], words: Mapping[str, str]) -> None:
    """Logits are the sum of the tokens' rows: a bag of words."""
    table = np.zeros((len(vocabulary), len(GOEMOTIONS_LABELS)), dtype=np.float32)
    for word, label in words.items():
        table[vocabulary[word], GOEMOTIONS_LABELS.index(label)] = _PULL
    table[vocabulary["[CLS]"]] = _BIAS
    table[vocabulary[POISON_WORD]] = np.nan
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["rows"]),
        helper.make_node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["mask", "last_axis"], ["mask_column"]),
        helper.make_node("Mul", ["rows", "mask_column"], ["kept"]),
        helper.make_node("ReduceSum", ["kept", "token_axis"], ["logits"], keepdims=0),
    ]
    shape = ["texts", "tokens"]
    graph = helper.make_graph(
        nodes,
        "tiny-words",
        [helper.make_tensor_value_info(name, TensorProto.INT64, shape) for name in ("input_ids", "attention_mask")],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["texts", len(GOEMOTIONS_LABELS)])],
        [
            numpy_helper.from_array(table, "table"),
            numpy_helper.from_array(np.array([-1], dtype=np.int64), "last_axis"),
            numpy_helper.from_array(np.array([1], dtype=np.int64), "token_axis"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    onnx.save(model, str(path))
