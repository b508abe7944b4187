"""Answers to short texts that were asked lately: chats are full of «спасибо», «ок» and «да»."""

from collections import OrderedDict
from hashlib import blake2b
from typing import Generic, TypeVar

# Longer texts hardly ever come again, and would only drive out those that do.
_MAX_CHARS = 64
_KEY_BYTES = 16

Answer = TypeVar("Answer")


class TextCache(Generic[Answer]):
    """Remembers the latest `max_texts` answers; the one unused for longest goes first. 0 remembers nothing.

    - Texts themselves are not kept: a key is a hash of the text and of the bundle's digest, so that the answer of one model
      is never read for another.
    - An entry takes about half a kilobyte.
    - Not thread-safe.
    """

    def __init__(self, *, model_digest: str, max_texts: int) -> None:
        self._salt = blake2b(model_digest.encode(), digest_size=_KEY_BYTES).digest()
        self._max_texts = max_texts
        self._answers: OrderedDict[bytes, Answer] = OrderedDict()

    def __len__(self) -> int:
        return len(self._answers)

    def takes(self, text: str) -> bool:
        """Return whether a text is of those that are remembered."""
        return self._max_texts > 0 and len(text) <= _MAX_CHARS

    def find(self, text: str) -> Answer | None:
        """Return the answer to a text, if it is remembered, and count it as used now."""
        if not self.takes(text):
            return None
        key = self._key(text)
        answer = self._answers.get(key)
        if answer is not None:
            self._answers.move_to_end(key)
        return answer

    def keep(self, text: str, answer: Answer) -> None:
        """Remember an answer, if the text is of those that are remembered."""
        if not self.takes(text):
            return
        key = self._key(text)
        self._answers[key] = answer
        self._answers.move_to_end(key)
        if len(self._answers) > self._max_texts:
            self._answers.popitem(last=False)

    def _key(self, text: str) -> bytes:
        return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=_KEY_BYTES, key=self._salt).digest()
