"""Classifies the texts of a poll off the event loop, and finds the text that breaks the model, if one does."""

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from worker.core.failures import WorkerError
from worker.core.micro_batch import plan_micro_batches
from worker.inference.classifier import Classifier, TokenizedText
from worker.inference.text_cache import TextCache

_CANARY_TEXT = "проверка"

T = TypeVar("T")
R = TypeVar("R")


class ModelBrokenError(WorkerError):
    """The model fails on every text: not a text's fault, nothing may be diverted because of it."""


@dataclass(frozen=True, slots=True)
class TextLogits:
    """Logits of one text, of shape [labels]."""

    logits: npt.NDArray[np.float32]
    was_truncated: bool


@dataclass(frozen=True, slots=True)
class PoisonText:
    """A text on which the model fails, alone, while it answers others. `error` names the failure's type only."""

    error: str


Classified = TextLogits | PoisonText


class InferenceWatch(Protocol):
    """Is told what the executor did, on the executor's thread."""

    def tokenized(self, seconds: float) -> None:
        """A poll's texts were tokenized."""
        ...

    def ran_micro_batch(self, *, texts: int, tokens: int, padded_tokens: int, seconds: float) -> None:
        """The model ran on a micro-batch."""
        ...

    def looked_up(self, *, hits: int, misses: int) -> None:
        """A poll's short texts were looked for in the cache."""
        ...


class InferenceExecutor:
    """Owns the one thread on which the classifier runs.

    - `classify` may be awaited from the event loop; calls run one after another.
    - Used directly, `classify_texts` runs on the caller's thread; don't mix the two.
    - A text that comes several times is classified once; one that `cache` remembers isn't at all. A poison text is never
      remembered.
    """

    def __init__(
        self,
        classifier: Classifier,
        *,
        max_padded_tokens: int,
        max_texts: int,
        cache: TextCache[TextLogits] | None = None,
        watch: InferenceWatch | None = None,
    ) -> None:
        self._classifier = classifier
        self._cache = cache
        self._watch = watch
        self._max_padded_tokens = max_padded_tokens
        self._max_texts = max_texts
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="inference")

    async def classify(self, texts: Sequence[str]) -> list[Classified]:
        """Return the logits of each text, in order, without blocking the event loop."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self.classify_texts, texts)

    def classify_texts(self, texts: Sequence[str]) -> list[Classified]:
        """Return the logits of each text, in order; a text that breaks the model is a `PoisonText`.

        Raises `ModelBrokenError` when the model fails on a plain word too.
        """
        found = self._remembered(texts)
        asked = [text for text in dict.fromkeys(texts) if text not in found]
        for text, answer in zip(asked, self._classify_new(asked), strict=True):
            found[text] = answer
            if self._cache is not None and isinstance(answer, TextLogits):
                self._cache.keep(text, answer)
        return [found[text] for text in texts]

    def _remembered(self, texts: Sequence[str]) -> dict[str, Classified]:
        """Return the answers that the cache has."""
        if self._cache is None:
            return {}
        short = [text for text in texts if self._cache.takes(text)]
        found: dict[str, Classified] = {}
        for text in short:
            answer = self._cache.find(text)
            if answer is not None:
                found[text] = answer
        if self._watch is not None and short:
            hits = sum(text in found for text in short)
            self._watch.looked_up(hits=hits, misses=len(short) - hits)
        return found

    def _classify_new(self, texts: Sequence[str]) -> list[Classified]:
        tokenized = _isolate(self._tokenize, texts)
        found: dict[int, Classified] = {i: each for i, each in enumerate(tokenized) if isinstance(each, PoisonText)}
        good = [(index, each) for index, each in enumerate(tokenized) if isinstance(each, TokenizedText)]
        plan = plan_micro_batches(
            [each.token_count for _, each in good],
            max_padded_tokens=self._max_padded_tokens,
            max_texts=self._max_texts,
        )
        for micro_batch in plan:
            rows = _isolate(self._logit_rows, [good[position][1] for position in micro_batch])
            for position, row in zip(micro_batch, rows, strict=True):
                index, tokens = good[position]
                # A copy: a row alone would keep its whole micro-batch in memory.
                found[index] = row if isinstance(row, PoisonText) else TextLogits(row.copy(), tokens.was_truncated)
        if any(isinstance(each, PoisonText) for each in found.values()):
            self._check_that_model_works()
        return [found[index] for index in range(len(texts))]

    def close(self) -> None:
        """Let the running call end and stop the thread."""
        self._thread.shutdown(wait=True, cancel_futures=True)

    def _tokenize(self, texts: Sequence[str]) -> list[TokenizedText]:
        began_s = time.perf_counter()
        tokenized = self._classifier.tokenize(texts)
        if self._watch is not None:
            self._watch.tokenized(time.perf_counter() - began_s)
        return tokenized

    def _logit_rows(self, tokenized: Sequence[TokenizedText]) -> list[npt.NDArray[np.float32]]:
        began_s = time.perf_counter()
        logits = self._classifier.logits(tokenized)
        if self._watch is not None:
            counts = [each.token_count for each in tokenized]
            self._watch.ran_micro_batch(
                texts=len(counts),
                tokens=sum(counts),
                padded_tokens=max(counts) * len(counts),
                seconds=time.perf_counter() - began_s,
            )
        if not np.isfinite(logits).all():
            raise FloatingPointError("logits are not finite")
        return list(logits)

    def _check_that_model_works(self) -> None:
        try:
            self._logit_rows(self._classifier.tokenize([_CANARY_TEXT]))
        except Exception as error:
            raise ModelBrokenError(
                f"the model fails on every text ({type(error).__name__}): check the bundle and the machine's memory"
            ) from error


def _isolate(function: Callable[[Sequence[T]], Sequence[R]], inputs: Sequence[T]) -> list[R | PoisonText]:
    """Map a list at once; where that raises, halve until the inputs that raise stand alone."""
    if not inputs:
        return []
    try:
        return list(function(inputs))
    except Exception as error:  # noqa: BLE001 - this is the boundary where a model's failure becomes a value
        if len(inputs) == 1:
            return [PoisonText(type(error).__name__)]
    middle = len(inputs) // 2
    return _isolate(function, inputs[:middle]) + _isolate(function, inputs[middle:])
