"""One suite for every classifier: the tiny one of the tests, the ONNX graph that ships, and torch on the same weights."""

import json
from pathlib import Path

import numpy as np
import pytest

from tests.support.worker_process import ROOT
from worker.core.scoring import PROBABILITY_DECIMALS, probabilities_from_logits
from worker.inference.executor import InferenceExecutor, TextLogits
from worker.inference.model_bundle import DEFAULT_BUNDLE, load_model_bundle
from worker.inference.onnx_classifier import OnnxClassifier
from worker.inference.torch_classifier import TorchClassifier

ODDITIES = [
    "",
    " ",
    "\x00",
    "а\u0301" * 50,
    "\u202eтекст",
    "\u200b\u200d\ufeff",
    "🤬" * 3000,
    "слово " * 4000,
    "�",
    "𝔘𝔫𝔦𝔠𝔬𝔡𝔢",
    "\t\n\r",
]


def demo_texts() -> list[str]:
    texts = []
    for line in (ROOT / "worker" / "demo_chats.jsonl").read_text("utf-8").splitlines():
        try:
            message = json.loads(line)
        except ValueError:
            continue
        if isinstance(message, dict) and str(message.get("text", "")).strip():
            texts.append(message["text"])
    return texts


@pytest.fixture(
    params=["tiny", pytest.param("shipped", marks=pytest.mark.model), pytest.param("torch", marks=pytest.mark.model)]
)
def classifier(request, tiny_bundle: Path):
    if request.param == "tiny":
        return OnnxClassifier(load_model_bundle(tiny_bundle), threads=1)
    bundle = load_model_bundle(DEFAULT_BUNDLE)
    return OnnxClassifier(bundle) if request.param == "shipped" else TorchClassifier(bundle)


def probabilities(classifier, texts):
    return probabilities_from_logits(classifier.logits(classifier.tokenize(texts)))


def test_logits_have_a_row_a_text_and_a_column_a_label(classifier):
    logits = classifier.logits(classifier.tokenize(["спасибо", "злюсь", "почему"]))
    assert logits.shape == (3, 28)
    assert logits.dtype == np.float32


def test_a_row_depends_on_its_own_text_alone(classifier):
    """Whatever stands beside a text, and however far it is padded, its probabilities stay."""
    texts = demo_texts()[:48]
    alone = np.concatenate([probabilities(classifier, [text]) for text in texts])
    together = probabilities(classifier, texts)
    padded = probabilities(classifier, [*texts, "очень длинный рассказ " * 60])[:-1]
    tolerance = 2 * 10**-PROBABILITY_DECIMALS
    assert np.abs(alone - together).max() <= tolerance
    assert np.abs(alone - padded).max() <= tolerance


def test_odd_texts_give_finite_logits(classifier):
    for text in ODDITIES:
        assert np.isfinite(classifier.logits(classifier.tokenize([text]))).all()
    found = InferenceExecutor(classifier, max_padded_tokens=1024, max_texts=4).classify_texts(ODDITIES)
    assert all(isinstance(each, TextLogits) for each in found)


def test_a_long_text_is_cut_to_the_token_limit_and_says_so(classifier):
    short, long = classifier.tokenize(["рада", "слово " * 4000])
    assert not short.was_truncated
    assert long.was_truncated
    assert short.token_count < long.token_count <= 512


@pytest.mark.model
def test_the_shipped_graph_agrees_with_torch_on_the_demos_texts():
    bundle = load_model_bundle(DEFAULT_BUNDLE)
    texts = demo_texts()
    thresholds = np.array(bundle.thresholds)
    onnx = probabilities(OnnxClassifier(bundle), texts) >= thresholds
    torch = probabilities(TorchClassifier(bundle), texts) >= thresholds
    assert (onnx == torch).mean() >= 0.99


GOLDEN = {
    "Спасибо большое, мне это помогло": "gratitude",
    "Вы вообще читать умеете?! Верните деньги, мошенники!": "anger",
    "Когда откроется отделение на Ленина?": "neutral",
    "Ура, наконец-то заработало, я так рада!": "joy",
}


@pytest.mark.model
@pytest.mark.parametrize(("text", "label"), GOLDEN.items())
def test_golden_samples_come_out_right(text, label):
    bundle = load_model_bundle(DEFAULT_BUNDLE)
    classifier = OnnxClassifier(bundle)
    scorer = bundle.scorer({"anger": 1.0})
    score = scorer.score(classifier.logits(classifier.tokenize([text]))[0])
    assert label in [each.label for each in score.emotions] or (label == "neutral" and not score.emotions)
