"""From verdicts to what is published: emotion events, escalation events and dead letters."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from worker.contracts import dead_letter
from worker.contracts.outbound import Emotion, EmotionEvent, EscalationEvent, Evidence, ModelInfo, Source
from worker.core.escalation import ChatFacts, EscalationDecision, JudgedMessage
from worker.core.label_state import policy_time_s, state_headers, timestamp_of, timestamp_s_of
from worker.core.labels import tone_of
from worker.core.records import Decoded, Headers, OutgoingRecord, Rejected, TopicNames
from worker.core.scoring import LabelProbability, Score


@dataclass(frozen=True, slots=True)
class ScoredMessage:
    """A chat message with what the model heard in it."""

    decoded: Decoded
    score: Score
    was_truncated: bool


def sent_at_of(decoded: Decoded) -> datetime:
    """Return when the message was sent: as it says itself, else its record's timestamp."""
    return decoded.message.sent_at or timestamp_of(decoded.record.timestamp_ms)


def judged_message_of(scored: ScoredMessage) -> JudgedMessage:
    """Return the message as the escalation policy sees it."""
    message, record = scored.decoded.message, scored.decoded.record
    sent_at = sent_at_of(scored.decoded)
    return JudgedMessage(
        message_id=message.message_id,
        author=message.author,
        operator_id=message.operator_id,
        sent_at=sent_at,
        sent_at_s=policy_time_s(sent_at, timestamp_ms=record.timestamp_ms),
        recorded_at_s=timestamp_s_of(record.timestamp_ms),
        emotions=scored.score.emotions,
        negativity=scored.score.negativity,
    )


@dataclass(frozen=True, slots=True)
class EventBuilder:
    """Builds records to publish; holds what is the same for all of them."""

    topics: TopicNames
    model: ModelInfo
    worker_version: str
    label_order: tuple[str, ...]
    publishes_probabilities: bool = False

    def emotion_record(self, scored: ScoredMessage, *, facts: ChatFacts, classified_at: datetime) -> OutgoingRecord:
        """Return the emotion event of a message, keyed by its chat; `facts` are the chat's after it."""
        message, record = scored.decoded.message, scored.decoded.record
        event = EmotionEvent(
            event_id=f"emotion:{record.position}",
            message_id=message.message_id,
            chat_id=message.chat_id,
            author=message.author,
            operator_id=message.operator_id,
            emotions=_emotions(scored.score.emotions),
            tone=tone_of(each.label for each in scored.score.emotions),
            negativity=scored.score.negativity,
            model=self.model,
            sent_at=sent_at_of(scored.decoded),
            classified_at=classified_at,
            truncated=scored.was_truncated,
            source=Source(topic=record.topic, partition=record.partition, offset=record.offset),
            probabilities=dict(zip(self.label_order, scored.score.probabilities, strict=True))
            if self.publishes_probabilities
            else None,
        )
        absent = None if self.publishes_probabilities else {"probabilities"}
        value = event.model_dump_json(exclude=absent).encode()
        return _answer(self.topics.emotions, scored, value, headers=state_headers(record, facts))

    def escalation_record(self, scored: ScoredMessage, decision: EscalationDecision, *, raised_at: datetime) -> OutgoingRecord:
        """Return the escalation event that a message set off, keyed by its chat."""
        message = scored.decoded.message
        event = EscalationEvent(
            event_id=f"escalation:{scored.decoded.record.position}",
            chat_id=message.chat_id,
            operator_id=decision.operator_id,
            reason=decision.reason,
            severity=decision.severity,
            evidence=tuple(_evidence(each) for each in decision.evidence),
            raised_at=raised_at,
            model=self.model,
        )
        return _answer(self.topics.escalations, scored, event.model_dump_json().encode())

    def dead_letter_record(self, rejected: Rejected) -> OutgoingRecord:
        """Return the original record byte for byte, with headers added that say where it was and why it was refused."""
        record = rejected.record
        added = {
            dead_letter.REASON: rejected.reason,
            dead_letter.ERROR: rejected.error,
            dead_letter.TOPIC: record.topic,
            dead_letter.PARTITION: record.partition,
            dead_letter.OFFSET: record.offset,
            dead_letter.TIMESTAMP: record.timestamp_ms,
            dead_letter.WORKER_VERSION: self.worker_version,
        }
        headers = (*record.headers, *((name, str(value).encode()) for name, value in added.items()))
        return OutgoingRecord(self.topics.dead_letter, record.key, record.value, headers)


def _emotions(labels: Sequence[LabelProbability]) -> tuple[Emotion, ...]:
    return tuple(Emotion(label=each.label, probability=each.probability, threshold=each.threshold) for each in labels)


def _evidence(judged: JudgedMessage) -> Evidence:
    return Evidence(
        message_id=judged.message_id,
        emotions=_emotions(judged.emotions),
        negativity=judged.negativity,
        sent_at=judged.sent_at,
    )


def _answer(topic: str, scored: ScoredMessage, value: bytes, *, headers: Headers = ()) -> OutgoingRecord:
    # To the partition with the input partition's number: who reads that one can read back what was published of it.
    decoded = scored.decoded
    return OutgoingRecord(topic, decoded.message.chat_id.encode(), value, headers, partition=decoded.record.partition)
