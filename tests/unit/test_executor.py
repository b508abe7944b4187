import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.core.labels import GOEMOTIONS_LABELS
from worker.inference.classifier import TokenizedText
from worker.inference.executor import InferenceExecutor, ModelBrokenError, PoisonText, TextLogits
from worker.inference.model_bundle import load_model_bundle
from worker.inference.onnx_classifier import OnnxClassifier
from worker.inference.text_cache import TextCache


class FakeClassifier:
    """Logits are the text's first number; texts with "bad" in them fail where they are told to."""

    def __init__(self, *, fails_in="logits", is_broken=False):
        self.fails_in = fails_in
        self.is_broken = is_broken
        self.micro_batches = []
        self.threads = set()

    def tokenize(self, texts):
        if self.fails_in == "tokenize" and any("bad" in text for text in texts):
            raise ValueError("tokenizer")
        return [TokenizedText(tuple(text.encode()), was_truncated=False) for text in texts]

    def logits(self, tokenized):
        self.threads.add(threading.current_thread().name)
        texts = [bytes(each.token_ids).decode() for each in tokenized]
        if self.is_broken or (self.fails_in == "logits" and any("bad" in text for text in texts)):
            raise RuntimeError("model")
        self.micro_batches.append(texts)
        return np.array([[float(len(text))] for text in texts], dtype=np.float32)


class Looks:
    """Notes what the cache was asked."""

    def __init__(self):
        self.seen = []

    def tokenized(self, seconds):
        pass

    def ran_micro_batch(self, **figures):
        pass

    def looked_up(self, *, hits, misses):
        self.seen.append((hits, misses))


def executor(classifier, *, max_texts=4, remembers=0, watch=None):
    cache = TextCache(model_digest="sha256:1", max_texts=remembers)
    return InferenceExecutor(classifier, max_padded_tokens=1000, max_texts=max_texts, cache=cache, watch=watch)


@pytest.mark.parametrize("fails_in", ["tokenize", "logits"])
@given(st.lists(st.sampled_from(["a", "bb", "ccc", "bad", "dddd"]), max_size=20))
def test_a_poison_text_is_found_and_its_neighbours_are_answered_in_order(fails_in, texts):
    found = executor(FakeClassifier(fails_in=fails_in)).classify_texts(texts)
    assert len(found) == len(texts)
    for text, each in zip(texts, found, strict=True):
        if text == "bad":
            assert isinstance(each, PoisonText)
        else:
            assert each.logits[0] == len(text)


def test_a_model_that_fails_on_every_text_is_fatal_and_diverts_nothing():
    with pytest.raises(ModelBrokenError):
        executor(FakeClassifier(is_broken=True)).classify_texts(["a", "b"])


def test_texts_are_grouped_by_token_count():
    classifier = FakeClassifier()
    executor(classifier, max_texts=2).classify_texts(["a", "dddd", "b", "eeee"])
    assert classifier.micro_batches == [["dddd", "eeee"], ["a", "b"]]


async def test_classify_runs_off_the_event_loop():
    classifier = FakeClassifier()
    found = await executor(classifier).classify(["a"])
    assert isinstance(found[0], TextLogits)
    assert threading.current_thread().name not in classifier.threads


def test_logits_that_are_not_finite_are_poison(tiny_bundle):
    found = executor(OnnxClassifier(load_model_bundle(tiny_bundle), threads=1)).classify_texts(["спасибо", "отрава", "злюсь"])
    assert [type(each) for each in found] == [TextLogits, PoisonText, TextLogits]
    assert GOEMOTIONS_LABELS[int(found[0].logits.argmax())] == "gratitude"
    assert GOEMOTIONS_LABELS[int(found[2].logits.argmax())] == "anger"


def test_a_text_that_comes_several_times_is_classified_once():
    classifier = FakeClassifier()
    found = executor(classifier).classify_texts(["ok", "да", "ok", "ok"])
    assert sorted(text for micro_batch in classifier.micro_batches for text in micro_batch) == ["ok", "да"]
    assert [each.logits[0] for each in found] == [2.0, 2.0, 2.0, 2.0]


def test_a_short_text_is_remembered_and_its_answer_is_the_same_to_the_bit(tiny_bundle):
    bundle = load_model_bundle(tiny_bundle)
    looks = Looks()
    remembering = executor(OnnxClassifier(bundle, threads=1), remembers=10, watch=looks)
    first = remembering.classify_texts(["спасибо", "злюсь"])
    again = remembering.classify_texts(["почему", "спасибо"])
    assert again[1].logits.tobytes() == first[0].logits.tobytes()
    assert looks.seen == [(0, 2), (1, 1)]


def test_long_texts_are_not_remembered_nor_counted():
    classifier, looks = FakeClassifier(), Looks()
    remembering = executor(classifier, remembers=10, watch=looks)
    for _ in range(2):
        remembering.classify_texts(["a" * 65])
    assert len(classifier.micro_batches) == 2
    assert looks.seen == []


def test_a_poison_text_is_never_remembered():
    classifier = FakeClassifier(fails_in="logits")
    remembering = executor(classifier, remembers=10)
    assert isinstance(remembering.classify_texts(["bad"])[0], PoisonText)
    classifier.fails_in = "nothing"
    assert isinstance(remembering.classify_texts(["bad"])[0], TextLogits)


def test_a_cache_of_no_texts_remembers_nothing():
    classifier, looks = FakeClassifier(), Looks()
    forgetful = executor(classifier, watch=looks)
    for _ in range(2):
        forgetful.classify_texts(["ok"])
    assert classifier.micro_batches == [["ok"], ["ok"]]
    assert looks.seen == []
