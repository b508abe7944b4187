"""The demo's chats as a shift that goes on: the same chats again under new ids, and other operators who answer escalations."""

import json
import time
from collections import deque
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any

from worker.kafka.demo_producer import key_of, lines_with_keys

_ANSWER_AFTER_S = (15, 45, 25, 70)  # in turn
_UNANSWERED_EVERY = 7  # some wait for somebody who never comes
_OPERATORS = ("op-vera", "op-maxim", "op-lena")
_GREETING = "Здравствуйте! Я подключился к вашему чату вместо коллеги, прочитал переписку и сейчас во всём разберусь."

Line = tuple[bytes, bytes | None]


class Shift:
    """Gives lines without end, sent now; `note_escalation` has another operator join that chat some time later."""

    def __init__(self, chats: Path, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._chats = chats
        self._clock = clock
        self._escalated = 0
        self._joining: deque[tuple[float, str, str | None]] = deque()

    def lines(self) -> Iterator[Line]:
        """Yield value and key of the next record to publish."""
        for number in count():
            for value, key in lines_with_keys(self._chats):
                yield from self._joined()
                yield _anew(value, key, number=number)

    def note_escalation(self, escalation: dict[str, Any]) -> None:
        """Have another operator join the chat of an escalation event, mostly."""
        self._escalated += 1
        if self._escalated % _UNANSWERED_EVERY:
            due_s = self._clock() + _ANSWER_AFTER_S[self._escalated % len(_ANSWER_AFTER_S)]
            self._joining.append((due_s, escalation["chat_id"], escalation["operator_id"]))

    def _joined(self) -> Iterator[Line]:
        for _ in range(len(self._joining)):
            due_s, chat_id, present = self._joining.popleft()
            if due_s > self._clock():
                self._joining.append((due_s, chat_id, present))
                continue
            others = [each for each in _OPERATORS if each != present]
            message = {
                "message_id": f"{chat_id}-joined-{due_s:.0f}",
                "chat_id": chat_id,
                "text": _GREETING,
                "author": "operator",
                "operator_id": others[len(chat_id) % len(others)],
                "sent_at": _now(),
            }
            yield _line(message)


def _anew(value: bytes, key: bytes | None, *, number: int) -> Line:
    """Return a line sent now, and from the second round on under ids of its round; one that is no message stays as it is."""
    if key is None:
        return value, key
    message = json.loads(value)
    message["sent_at"] = _now()
    if number and isinstance(message.get("message_id"), str):
        message |= {"chat_id": f"{message['chat_id']}-{number + 1}", "message_id": f"{message['message_id']}-{number + 1}"}
    return _line(message)


def _line(message: dict[str, Any]) -> Line:
    value = json.dumps(message, ensure_ascii=False).encode()
    return value, key_of(value)


def _now() -> str:
    return datetime.now(UTC).isoformat()
