"""From texts to token ids with the bundle's own tokenizer."""

import os
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from worker.core.failures import ModelBundleError
from worker.inference.classifier import TokenizedText

# A text is cut to this many characters before it is tokenized: far more than the token limit can hold, and it keeps the cost of
# one text bounded.
_MAX_CHARS = 16_384


class BundleTokenizer:
    """Tokenizes with a bundle's tokenizer.json, special tokens included, up to `max_tokens`.

    Of a longer text the beginning and the end are kept and the middle is left out: what a client feels is often said last.
    `threads` binds the first tokenizer of a process and with it all later ones.
    """

    def __init__(self, content: bytes, *, max_tokens: int, threads: int = 1) -> None:
        # Read by the library when it first tokenizes; left alone, it takes every core of the host, a container's limit or not.
        os.environ.setdefault("RAYON_NUM_THREADS", str(threads))
        try:
            self._tokenizer = Tokenizer.from_buffer(content)
        except Exception as error:
            raise ModelBundleError(f"the bundle's tokenizer.json can't be read as a tokenizer: {error}") from error
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._max_tokens = max_tokens

    def tokenize(self, texts: Sequence[str]) -> list[TokenizedText]:
        """Return the tokens of each text, in order."""
        encodings = self._tokenizer.encode_batch_fast([_bounded(text) for text in texts])
        return [self._cut(encoding.ids, len(text) > _MAX_CHARS) for encoding, text in zip(encodings, texts, strict=True)]

    def _cut(self, token_ids: list[int], was_bounded: bool) -> TokenizedText:
        if len(token_ids) <= self._max_tokens:
            return TokenizedText(tuple(token_ids), was_bounded)
        head = (self._max_tokens + 1) // 2
        tail = self._max_tokens - head
        return TokenizedText((*token_ids[:head], *token_ids[-tail:]), was_truncated=True)


def _bounded(text: str) -> str:
    half = _MAX_CHARS // 2
    return text if len(text) <= _MAX_CHARS else text[:half] + text[-half:]


def pad_token_ids(
    tokenized: Sequence[TokenizedText], *, pad_token_id: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return token ids and attention mask, both of shape [texts, longest token count], padded on the right."""
    longest = max((each.token_count for each in tokenized), default=0)
    token_ids = np.full((len(tokenized), longest), pad_token_id, dtype=np.int64)
    attention_mask = np.zeros((len(tokenized), longest), dtype=np.int64)
    for row, each in enumerate(tokenized):
        token_ids[row, : each.token_count] = each.token_ids
        attention_mask[row, : each.token_count] = 1
    return token_ids, attention_mask
