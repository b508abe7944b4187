"""The in-process ceiling: the classifier alone, as the worker would call it, on the same texts and threads."""

import time
from collections.abc import Sequence

from worker.inference.executor import InferenceExecutor
from worker.inference.model_bundle import DEFAULT_BUNDLE, load_model_bundle
from worker.inference.onnx_classifier import OnnxClassifier
from worker.settings import Settings

POLL = 256


def inference(*, threads: int = 0) -> InferenceExecutor:
    """Return the shipped model with the worker's own defaults and no cache."""
    defaults = Settings()
    return InferenceExecutor(
        OnnxClassifier(load_model_bundle(DEFAULT_BUNDLE), threads=threads),
        max_padded_tokens=defaults.max_padded_tokens,
        max_texts=defaults.max_micro_batch,
    )


def classifier_rate(texts: Sequence[str], *, threads: int = 0, repeats: int = 3) -> float:
    """Return messages a second, the best of the repeats: tokenizing and inference, poll by poll."""
    executor = inference(threads=threads)
    executor.classify_texts(texts[:POLL])
    best = max(_rate(executor, texts) for _ in range(repeats))
    executor.close()
    return best


def lone_text_ms(texts: Sequence[str]) -> float:
    """Return the median milliseconds that one text takes, alone."""
    executor = inference()
    executor.classify_texts(texts[:POLL])
    taken = []
    for text in texts:
        started_s = time.perf_counter()
        executor.classify_texts([text])
        taken.append(time.perf_counter() - started_s)
    executor.close()
    return sorted(taken)[len(taken) // 2] * 1000


def _rate(executor: InferenceExecutor, texts: Sequence[str]) -> float:
    started_s = time.perf_counter()
    for first in range(0, len(texts), POLL):
        executor.classify_texts(texts[first : first + POLL])
    return len(texts) / (time.perf_counter() - started_s)
