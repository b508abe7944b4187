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


def timestamp_of(timestamp_ms: int) -> datetime:
    """Return a record's timestamp in UTC; one that no calendar holds becomes the nearest that it does."""
    return datetime.fromtimestamp(min(max(timestamp_ms, 0), _LATEST_TIMESTAMP_MS) / 1000, tz=UTC)


def policy_time_s(sent_at: datetime, *, timestamp_ms: int) -> float:
    """Return when a message was sent as the escalation policy sees it, seconds since the epoch.

    A message can't be sent after its record was written: the earlier of the two is taken, so that one wrong clock in a
    chat can't make all its later messages look late.
    """
    sent_at_s = sent_at.timestamp()
    return min(sent_at_s, timestamp_of(timestamp_ms).timestamp()) if timestamp_ms > 0 else sent_at_s


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
    """A label as it stands on the emotions topic, its value unread until it is asked for."""

    state: LabelState
    key: bytes
    value: bytes

    @property
    def answers(self) -> TopicPartition:
        """The input partition of the message that it labels."""
        return TopicPartition(self.state.source.topic, self.state.source.partition)

    @property
    def chat_id(self) -> str:
        return self.key.decode()

    @property
    def facts(self) -> ChatFacts:
        """The facts of its chat after the message that it labels."""
        state = self.state
        return ChatFacts(
            operator_id=state.operator_id,
            operator_since_s=_NEVER_S if state.operator_since_s is None else state.operator_since_s,
            escalated_at_s=_NEVER_S if state.escalated_at_s is None else state.escalated_at_s,
            heard_at_s=timestamp_of(state.timestamp_ms).timestamp(),
            role=state.role,
        )

    def counted_message(self) -> JudgedMessage | None:
        """Return the message that it labels, as the escalation policy saw it, if it counted.

        Raises `ValueError`, `KeyError` or `TypeError` when the value is no emotion event.
        """
        if self.state.role == "ignored":
            return None
        event: Mapping[str, Any] = from_json(self.value)
        sent_at = datetime.fromisoformat(event["sent_at"])
        return JudgedMessage(
            message_id=event["message_id"],
            author=event["author"],
            operator_id=event["operator_id"],
            sent_at=sent_at,
            sent_at_s=policy_time_s(sent_at, timestamp_ms=self.state.timestamp_ms),
            recorded_at_s=timestamp_of(self.state.timestamp_ms).timestamp(),
            emotions=tuple(
                LabelProbability(each["label"], each["probability"], each["threshold"]) for each in event["emotions"]
            ),
            negativity=event["negativity"],
        )


def published_label(headers: Headers, key: bytes | None, value: bytes | None) -> PublishedLabel | None:
    """Return the label that a record of the emotions topic is; None when it carries no state, such as an older worker's.

    Raises `ValueError` when what it carries is none.
    """
    for name, content in headers:
        if name == STATE_HEADER and content is not None and key is not None and value is not None:
            return PublishedLabel(LabelState.model_validate_json(content), key, value)
    return None
