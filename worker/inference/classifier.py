"""What the rest of the worker knows of a model: texts in, logits out."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, slots=True)
class TokenizedText:
    """Token ids of one text, special tokens included, already cut to the token limit."""

    token_ids: tuple[int, ...]
    was_truncated: bool

    @property
    def token_count(self) -> int:
        return len(self.token_ids)


class Classifier(Protocol):
    """Maps texts to logits. Not thread-safe: one thread at a time may call it."""

    def tokenize(self, texts: Sequence[str]) -> list[TokenizedText]:
        """Return the tokens of each text, in order."""
        ...

    def logits(self, tokenized: Sequence[TokenizedText]) -> npt.NDArray[np.float32]:
        """Return logits of shape [texts, labels], columns in the manifest's label order.

        A row depends on its own text alone, up to float rounding. Raises whatever the runtime raises: the caller isolates
        the text that breaks the model by halving the micro-batch.
        """
        ...
