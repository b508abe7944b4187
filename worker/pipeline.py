"""The journey of one poll, in the order in which it happens."""

from collections import Counter
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Protocol

import structlog

from worker.core.decode import decode_record
from worker.core.escalation import EscalationDecision
from worker.core.escalation_states import EscalationStates
from worker.core.events import EventBuilder, ScoredMessage, judged_message_of
from worker.core.labels import tone_of
from worker.core.records import Decoded, OutgoingRecord, Record, Rejected
from worker.core.rejection_flood import RejectionWindow
from worker.core.scoring import Scorer
from worker.inference.executor import Classified, InferenceExecutor, PoisonText
from worker.telemetry.metrics import Metrics

_log = structlog.get_logger(__name__)


class Publisher(Protocol):
    """Publishes events; returns once every one of them is confirmed, else raises."""

    async def publish(self, outgoing: Sequence[OutgoingRecord]) -> None:
        """Publish in the given order."""
        ...


class Committer(Protocol):
    """Stores the next offsets of settled records."""

    async def commit(self, settled: Sequence[Record]) -> None:
        """Commit the next offsets of the partitions that are still owned."""
        ...


class Pipeline:
    """Takes a poll from records to a commit.

    - One poll at a time: the caller waits for `process_poll` before it calls again.
    - When `process_poll` raises, nothing of the poll is committed or remembered: its records will come again.
    """

    def __init__(
        self,
        inference: InferenceExecutor,
        scorer: Scorer,
        *,
        states: EscalationStates,
        events: EventBuilder,
        flood: RejectionWindow,
        publisher: Publisher,
        committer: Committer,
        metrics: Metrics,
        now: Callable[[], datetime],
    ) -> None:
        self._inference = inference
        self._scorer = scorer
        self._states = states
        self._events = events
        self._flood = flood
        self._publisher = publisher
        self._committer = committer
        self._metrics = metrics
        self._now = now

    async def process_poll(self, records: Sequence[Record]) -> None:
        """Decode, classify, score, decide, publish, and only then commit."""
        decoded = [decode_record(record) for record in records]
        scored = await self._score(decoded)
        self._flood.observe([isinstance(each, Rejected) for each in scored])
        try:
            outgoing = self._build_events(scored)
            with self._metrics.publish_seconds.time():
                await self._publisher.publish(outgoing)
            self._states.keep()
        finally:
            self._states.discard()
        self._count(records, scored, outgoing)
        await self._committer.commit(records)

    async def _score(self, decoded: Sequence[Decoded | Rejected]) -> list[ScoredMessage | Rejected]:
        texts = [each.message.text for each in decoded if isinstance(each, Decoded)]
        with self._metrics.inference_seconds.time():
            classified = iter(await self._inference.classify(texts) if texts else [])
        return [each if isinstance(each, Rejected) else self._scored(each, next(classified)) for each in decoded]

    def _scored(self, decoded: Decoded, classified: Classified) -> ScoredMessage | Rejected:
        if isinstance(classified, PoisonText):
            return Rejected(decoded.record, "poison", f"the model fails on this text: {classified.error}")
        return ScoredMessage(decoded, self._scorer.score(classified.logits), classified.was_truncated)

    def _build_events(self, scored: Sequence[ScoredMessage | Rejected]) -> list[OutgoingRecord]:
        outgoing: list[OutgoingRecord] = []
        for each in scored:
            if isinstance(each, Rejected):
                outgoing.append(self._events.dead_letter_record(each))
                continue
            message, partition = each.decoded.message, each.decoded.record.topic_partition
            state, decision = self._states.judge(partition, message.chat_id, judged_message_of(each))
            outgoing.append(self._events.emotion_record(each, facts=state.facts, classified_at=self._now()))
            if decision is not None:
                outgoing.append(self._escalation_record(each, decision))
        return outgoing

    def _escalation_record(self, scored: ScoredMessage, decision: EscalationDecision) -> OutgoingRecord:
        chat_id = scored.decoded.message.chat_id
        _log.info("chat escalated", chat_id=chat_id, reason=decision.reason, severity=decision.severity)
        self._metrics.escalations.labels(decision.reason).inc()
        return self._events.escalation_record(scored, decision, raised_at=self._now())

    def _count(
        self, records: Sequence[Record], scored: Sequence[ScoredMessage | Rejected], outgoing: Sequence[OutgoingRecord]
    ) -> None:
        metrics, confirmed_at_s = self._metrics, self._now().timestamp()
        metrics.records_in.inc(len(records))
        metrics.poll_records.observe(len(records))
        metrics.remembered_chats.set(len(self._states))
        rejected = [each for each in scored if isinstance(each, Rejected)]
        if rejected:
            reasons = Counter(each.reason for each in rejected)
            _log.warning("records rejected", reasons=dict(reasons), first=rejected[0].record.position)
        for topic, count in Counter(each.topic for each in outgoing).items():
            metrics.events_out.labels(topic).inc(count)
        for record in records:
            metrics.latency_seconds.observe(max(0.0, confirmed_at_s - record.timestamp_ms / 1000))
        for each in scored:
            if isinstance(each, Rejected):
                metrics.dead_letters.labels(each.reason).inc()
                continue
            metrics.tones.labels(tone_of(emotion.label for emotion in each.score.emotions)).inc()
            for emotion in each.score.emotions:
                metrics.labels.labels(emotion.label).inc()
