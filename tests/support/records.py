"""Records and messages for tests, with everything that a test does not care about filled in."""

import json
from datetime import UTC, datetime

from worker.core.escalation import JudgedMessage
from worker.core.records import Headers, Record

START_S = 1_789_000_000.0


def make_record(
    value: bytes | None,
    *,
    offset: int = 0,
    partition: int = 0,
    key: bytes | None = b"chat-1",
    headers: Headers = (),
    timestamp_ms: int = int(START_S * 1000),
    topic: str = "chat.messages",
) -> Record:
    return Record(topic, partition, offset, timestamp_ms, key, value, headers)


def chat_json(text: str, **fields: object) -> bytes:
    return json.dumps({"message_id": "m1", "chat_id": "chat-1", "text": text, **fields}, ensure_ascii=False).encode()


def judged(
    message_id: str,
    *,
    negativity: float = 0.0,
    at_s: float = 0.0,
    recorded_at_s: float | None = None,
    author: str = "client",
    operator_id: str | None = None,
) -> JudgedMessage:
    sent_at_s = START_S + at_s
    return JudgedMessage(
        message_id=message_id,
        author=author,
        operator_id=operator_id,
        sent_at=datetime.fromtimestamp(sent_at_s, tz=UTC),
        sent_at_s=sent_at_s,
        recorded_at_s=sent_at_s if recorded_at_s is None else START_S + recorded_at_s,
        emotions=(),
        negativity=negativity,
    )
