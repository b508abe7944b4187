"""From a chat's facts to the header of its label, and from a published label back to what it says of its chat."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from pydantic_core import from_json

from worker.contracts.label_state import STATE_HEADER, LabelState
from worker.contracts.outbound import Source
from worker.core.escalation import ChatFacts, JudgedMessage
from worker.core.records import Headers, Record, TopicPartition
from worker.core.scoring import LabelProbability

_LATEST_TIMESTAMP_MS = 253_402_300_799_000  # the last second that datetime can hold
_NEVER_S = float("-inf")


def timestamp_s_of(timestamp_ms: int) -> float:
    """Return a record's timestamp in seconds since the epoch; one that no calendar holds becomes the nearest that it does."""
    return min(max(timestamp_ms, 0), _LATEST_TIMESTAMP_MS) / 1000


def timestamp_of(timestamp_ms: int) -> datetime:
    """Return a record's timestamp in UTC; one that no calendar holds becomes the nearest that it does."""
    return datetime.fromtimestamp(timestamp_s_of(timestamp_ms), tz=UTC)


def policy_time_s(sent_at: datetime, *, timestamp_ms: int) -> float:
    """Return when a message was sent as the escalation policy sees it, seconds since the epoch.

    A message can't be sent after its record was written: the earlier of the two is taken, so that one wrong clock in a
    chat can't make all its later messages look late.
    """
    sent_at_s = sent_at.timestamp()
    return min(sent_at_s, timestamp_s_of(timestamp_ms)) if timestamp_ms > 0 else sent_at_s


def state_headers(record: Record, facts: ChatFacts) -> Headers:
    """Return the headers of the label that answers `record`; `facts` are its chat's after it."""
    state = LabelState(
        source=Source(topic=record.topic, partition=record.partition, offset=record.offset),
        timestamp_ms=record.timestamp_ms,
        operator_id=facts.operator_id,
        operator_since_s=None if facts.operator_since_s == _NEVER_S else facts.operator_since_s,
        escalated_at_s=None if facts.escalated_at_s == _NEVER_S else facts.escalated_at_s,
        role=facts.role,
    )
    return ((STATE_HEADER, state.model_dump_json().encode()),)


@dataclass(frozen=True, slots=True)
class PublishedLabel:
    """A label as it stands on the emotions topic; its value is read only where its message counted."""

    answers: TopicPartition
    offset: int
    timestamp_ms: int
    chat_id: str
    facts: ChatFacts
    value: bytes

    def counted_message(self) -> JudgedMessage | None:
        """Return the message that it labels, as the escalation policy saw it, if it counted.

        Raises `ValueError`, `KeyError` or `TypeError` when the value is no emotion event.
        """
        if self.facts.role == "ignored":
            return None
        event = from_json(self.value)
        sent_at = datetime.fromisoformat(event["sent_at"])
        return JudgedMessage(
            message_id=event["message_id"],
            author=event["author"],
            operator_id=event["operator_id"],
            sent_at=sent_at,
            sent_at_s=policy_time_s(sent_at, timestamp_ms=self.timestamp_ms),
            recorded_at_s=self.facts.heard_at_s,
            emotions=tuple([LabelProbability(**each) for each in event["emotions"]]),
            negativity=event["negativity"],
        )


def published_label(headers: Headers, key: bytes | None, value: bytes | None) -> PublishedLabel | None:
    """Return the label that a record of the emotions topic is; None when it carries no state, such as an older worker's.

    Raises `ValueError`, `KeyError` or `TypeError` when what it carries is none. What the worker has written itself is not
    validated field by field: a restart waits for hundreds of thousands of these.
    """
    for name, content in headers:
        if name == STATE_HEADER and content is not None and key is not None and value is not None:
            return _label(from_json(content), key, value)
    return None


def _label(state: Mapping[str, Any], key: bytes, value: bytes) -> PublishedLabel:
    source, timestamp_ms = state["source"], state["timestamp_ms"]
    since_s, escalated_at_s = state["operator_since_s"], state["escalated_at_s"]
    facts = ChatFacts(
        operator_id=state["operator_id"],
        operator_since_s=_NEVER_S if since_s is None else since_s,
        escalated_at_s=_NEVER_S if escalated_at_s is None else escalated_at_s,
        heard_at_s=timestamp_s_of(timestamp_ms),
        role=state["role"],
    )
    answers = TopicPartition(source["topic"], source["partition"])
    return PublishedLabel(answers, source["offset"], timestamp_ms, key.decode(), facts, value)
