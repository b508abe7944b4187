"""What records read back come to: the outcome that a label or a dead letter is, the escalation that an event is."""

import json
import re
import zlib
from collections.abc import Iterable
from typing import Any

from tests.chaos.ledger import Escalation, Outcome, Position

_WHEN_PROCESSED = re.compile(rb'"(classified_at|raised_at)":"[^"]*",?')
# What of a dead letter's headers is not a matter of the record alone.
_NOT_COMPARED = ("dlq.error", "dlq.worker_version")


def label_of(message: Any) -> Outcome:
    """Return the outcome that an emotion event is."""
    event = json.loads(message.value())
    return label_outcome(event, message.value())


def label_outcome(event: Any, value: bytes) -> Outcome:
    """Return the outcome of an emotion event, given parsed and as it travels."""
    position = (event["source"]["partition"], event["source"]["offset"])
    return Outcome(position, "label", event["event_id"], digest_of(value), event["chat_id"])


def dead_letter_outcome(message: Any) -> Outcome:
    """Return the outcome that a dead letter is."""
    return dead_letter_of(message.key(), message.value(), message.headers() or ())


def dead_letter_of(key: bytes | None, value: bytes | None, headers: Iterable[tuple[str, bytes | None]]) -> Outcome:
    """Return the outcome that a dead letter of these parts is."""
    headers = list(headers)
    found = dict(headers)
    position = (int(found["dlq.partition"] or b""), int(found["dlq.offset"] or b""))
    compared = [each for each in headers if each[0] not in _NOT_COMPARED]
    return Outcome(position, "dead letter", "", zlib.crc32(repr((key, value, compared)).encode()), (key or b"").decode())


def escalation_of(value: bytes) -> Escalation:
    """Return the escalation of an escalation event."""
    event = json.loads(value)
    return Escalation(_position_in(event["event_id"]), event["event_id"], digest_of(value), event["chat_id"])


def digest_of(value: bytes) -> int:
    """Return a digest of what an event says, the time of its processing left out."""
    return zlib.crc32(_WHEN_PROCESSED.sub(b"", value))


def _position_in(event_id: str) -> Position:
    partition, _, offset = event_id.rpartition(":")[2].rpartition("-")
    return int(partition.rpartition("-")[2]), int(offset)
