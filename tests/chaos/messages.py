"""The numbered messages that a chaos run publishes: seeded, over hundreds of chats, with everything that chats do wrong."""

import json
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from tests.support.tiny_bundle import POISON_WORD
from worker.core.records import Headers

CHATS = 400

_CALM = ("спасибо", "рада", "почему", "заказ", "привет", "хорошо", "понятно")
_SOUR = ("зря", "неправильно", "раздражает", "почему", "заказ", "долго", "опять")
_FURIOUS = ("злюсь", "мерзость", "раздражает", "неправильно", "грустно", "страшно")
_MOODS = (_CALM, _CALM, _CALM, _SOUR, _SOUR, _FURIOUS)


@dataclass(frozen=True, slots=True)
class InputRecord:
    """What is published on the input topic; the key is the chat."""

    key: bytes
    value: bytes | None
    timestamp_ms: int
    headers: Headers = ()


@dataclass(slots=True)
class _Chat:
    chat_id: str
    operator: int = 0
    mood: tuple[str, ...] = _CALM
    recent: deque[InputRecord] = field(default_factory=lambda: deque(maxlen=5))


class MessageSource:
    """Makes one record after another; the same seed and the same times give the same records.

    In a thousand: 5 malformed, 20 duplicates of a recent message of their chat, 30 late by up to a minute. `clock_shift_s` is
    how wrong the producers' clock is.
    """

    def __init__(self, seed: int) -> None:
        self.published = 0
        self.clock_shift_s = 0.0
        self._random = random.Random(f"messages {seed}")
        self._chats = [_Chat(f"chat-{number}", operator=number % 17) for number in range(CHATS)]

    def next(self, now_s: float) -> InputRecord:
        """Return the next record, written at `now_s`."""
        chat, roll = self._random.choice(self._chats), self._random.random()
        self.published += 1
        timestamp_ms = int((now_s + self.clock_shift_s) * 1000)
        if roll < 0.005:
            return self.malformed(timestamp_ms, chat_id=chat.chat_id)
        if roll < 0.025 and chat.recent:
            return replace(self._random.choice(chat.recent), timestamp_ms=timestamp_ms)
        record = self._message(chat, timestamp_ms)
        chat.recent.append(record)
        return record

    def malformed(self, timestamp_ms: int, *, chat_id: str = "chat-0") -> InputRecord:
        """Return a record that can only be dead-lettered."""
        make = self._random.choice(_MALFORMED)
        headers = self._random.choice([(), (("trace", b"\xff\xfe"), ("empty", None))])
        return InputRecord(chat_id.encode(), make(chat_id, self.published), timestamp_ms, headers)

    def _message(self, chat: _Chat, timestamp_ms: int) -> InputRecord:
        roll = self._random.random()
        if self._random.random() < 0.05:
            chat.mood = self._random.choice(_MOODS)
        if self._random.random() < 0.02:
            chat.operator += 1
        late_ms = self._random.randrange(1000, 60_000) if self._random.random() < 0.03 else 0
        message: dict[str, object] = {
            "message_id": f"m-{self.published}",
            "chat_id": chat.chat_id,
            "text": " ".join(self._random.choices(chat.mood, k=self._random.randrange(1, 4))),
            "author": "client" if roll < 0.7 else "operator" if roll < 0.9 else "bot",
        }
        if self._random.random() < 0.8:
            message["operator_id"] = f"op-{chat.operator}"
        if late_ms or self._random.random() < 0.7:
            message["sent_at"] = datetime.fromtimestamp((timestamp_ms - late_ms) / 1000, tz=UTC).isoformat()
        return InputRecord(chat.chat_id.encode(), json.dumps(message, ensure_ascii=False).encode(), timestamp_ms)


def _without_value(_chat_id: str, _number: int) -> None:
    return None


def _cut_short(chat_id: str, number: int) -> bytes:
    return f'{{"message_id": "m-{number}", "chat_id": "{chat_id}", "te'.encode()


def _not_utf8(_chat_id: str, _number: int) -> bytes:
    return b"\xff\xfe\xfd" * 9


def _without_fields(chat_id: str, _number: int) -> bytes:
    return json.dumps({"chat_id": chat_id}).encode()


def _too_long(chat_id: str, number: int) -> bytes:
    return json.dumps({"message_id": f"m-{number}", "chat_id": chat_id, "text": "x" * 9000}).encode()


def _poison(chat_id: str, number: int) -> bytes:
    return json.dumps({"message_id": f"m-{number}", "chat_id": chat_id, "text": POISON_WORD}).encode()


_MALFORMED: tuple[Callable[[str, int], bytes | None], ...] = (
    _without_value,
    _cut_short,
    _not_utf8,
    _without_fields,
    _too_long,
    _poison,
)
