"""The journey of one poll, in the order in which it happens."""

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Protocol

import structlog

from worker.core.decode import decode_record
from worker.core.escalation import EscalationDecision
from worker.core.escalation_states import EscalationStates
from worker.core.events import EventBuilder, ScoredMessage, judged_message_of
from worker.core.labels import tone_of
from worker.core.records import Decoded, Headers, Outcome, OutgoingRecord, Record, Rejected, TopicPartition
from worker.core.rejection_flood import RejectionWindow
from worker.core.scoring import Score, Scorer
from worker.inference.executor import Classified, InferenceExecutor, PoisonText, TextLogits
from worker.telemetry.drift import DriftWatch
from worker.telemetry.metrics import Metrics
from worker.telemetry.tracing import NO_TRACE, NO_TRACER, PollTrace, Tracer

_log = structlog.get_logger(__name__)


class Delivery(Protocol):
    """Brings outcomes to the broker: at least once, or exactly once."""

    async def publish(self, outcomes: Sequence[Outcome]) -> Collection[TopicPartition]:
        """Publish in the given order and return once all is confirmed; else raise.

        Returns the input partitions that turned out to be another worker's: their outcomes don't count, it makes them anew.
        """
        ...

    async def commit(self, settled: Sequence[Record]) -> None:
        """Store the next offsets of the partitions that are still owned, unless publishing has done so."""
        ...


@dataclass(frozen=True, slots=True)
class ScoredPoll:
    """A poll's records and, for each of them in the same order, the scored message or why there is none."""

    records: Sequence[Record]
    scored: Sequence[ScoredMessage | Rejected]
    trace: PollTrace = NO_TRACE


class Pipeline:
    """Takes a poll from records to a commit, in two steps.

    - `score` may run for several polls at a time: it looks at nothing but the poll.
    - `settle` must run for one poll at a time, in the order in which the polls were read: a chat's decisions build on it.
    - When `settle` raises or is cancelled, nothing of the poll is remembered, and no later one may be settled: its records will
      come again.
    """

    def __init__(
        self,
        inference: InferenceExecutor,
        scorer: Scorer,
        *,
        states: EscalationStates,
        events: EventBuilder,
        flood: RejectionWindow,
        delivery: Delivery,
        metrics: Metrics,
        now: Callable[[], datetime],
        drift: DriftWatch | None = None,
        tracer: Tracer = NO_TRACER,
    ) -> None:
        self._inference = inference
        self._scorer = scorer
        self._states = states
        self._events = events
        self._flood = flood
        self._delivery = delivery
        self._metrics = metrics
        self._now = now
        self._drift = drift
        self._tracer = tracer

    async def score(self, records: Sequence[Record]) -> ScoredPoll:
        """Decode, classify and score."""
        trace = self._tracer.begin_poll(records)
        decoded = [decode_record(record) for record in records]
        texts = [each.message.text for each in decoded if isinstance(each, Decoded)]
        with self._metrics.inference_seconds.time(), trace.stage("classify"):
            classified = await self._inference.classify(texts) if texts else []
        scores = iter(self._scorer.score_all([each.logits for each in classified if isinstance(each, TextLogits)]))
        answers = iter(classified)
        scored = [each if isinstance(each, Rejected) else _scored(each, next(answers), scores) for each in decoded]
        return ScoredPoll(records, scored, trace)

    async def settle(self, poll: ScoredPoll) -> None:
        """Decide, publish, and only then commit."""
        self._flood.observe(
            (record.topic_partition, isinstance(each, Rejected)) for record, each in zip(poll.records, poll.scored, strict=True)
        )
        try:
            outcomes = [self._outcome(each, poll.trace) for each in poll.scored]
            with self._metrics.publish_seconds.time(), poll.trace.stage("publish"):
                lost = await self._delivery.publish(outcomes)
            self._states.forget_partitions(lost)
            self._states.keep()
        finally:
            self._states.discard()
        self._count(poll, outcomes, lost=lost)
        with self._metrics.commit_seconds.time(), poll.trace.stage("commit"):
            await self._delivery.commit(poll.records)
        poll.trace.end(rejected=sum(isinstance(each, Rejected) for each in poll.scored))

    def _outcome(self, scored: ScoredMessage | Rejected, trace: PollTrace) -> Outcome:
        if isinstance(scored, Rejected):
            return Outcome(scored.record, (self._events.dead_letter_record(scored),))
        message, record = scored.decoded.message, scored.decoded.record
        state, decision = self._states.judge(record.topic_partition, message.chat_id, judged_message_of(scored))
        label = self._events.emotion_record(scored, facts=state.facts, classified_at=self._now())
        headers = trace.headers_for(record)
        if decision is None:
            return Outcome(record, (_with_headers(label, headers),))
        made = (label, self._escalation_record(scored, decision))
        return Outcome(record, tuple(_with_headers(each, headers) for each in made), escalated=decision.reason)

    def _escalation_record(self, scored: ScoredMessage, decision: EscalationDecision) -> OutgoingRecord:
        chat_id = scored.decoded.message.chat_id
        _log.info("chat escalated", chat_id=chat_id, reason=decision.reason, severity=decision.severity)
        return self._events.escalation_record(scored, decision, raised_at=self._now())

    def _count(self, poll: ScoredPoll, outcomes: Sequence[Outcome], *, lost: Collection[TopicPartition]) -> None:
        metrics, confirmed_at_s = self._metrics, self._now().timestamp()
        metrics.poll_records.observe(len(poll.records))
        metrics.remembered_chats.set(len(self._states))
        metrics.crowded_out_chats.inc(self._states.take_crowded_out())
        for scored, outcome in zip(poll.scored, outcomes, strict=True):
            if outcome.record.topic_partition in lost:
                continue
            metrics.records_in.inc()
            metrics.latency_seconds.observe(max(0.0, confirmed_at_s - outcome.record.timestamp_ms / 1000))
            if outcome.escalated is not None:
                metrics.escalations.labels(outcome.escalated).inc()
                poll.trace.escalated(outcome.record, outcome.escalated)
            for each in outcome.outgoing:
                metrics.events_out.labels(each.topic).inc()
            self._count_labels(scored)
        if rejected := [each for each in poll.scored if isinstance(each, Rejected)]:
            reasons = Counter(each.reason for each in rejected)
            _log.warning("records rejected", reasons=dict(reasons), first=rejected[0].record.position)

    def _count_labels(self, scored: ScoredMessage | Rejected) -> None:
        metrics = self._metrics
        if isinstance(scored, Rejected):
            metrics.dead_letters.labels(scored.reason).inc()
            return
        labels = [emotion.label for emotion in scored.score.emotions]
        metrics.tones.labels(tone_of(labels)).inc()
        for label in labels:
            metrics.labels.labels(label).inc()
        if self._drift is not None and scored.decoded.message.author == "client":
            self._drift.observe(labels)


def _scored(decoded: Decoded, classified: Classified, scores: Iterator[Score]) -> ScoredMessage | Rejected:
    """Return the message with the next of the scores; a poison text has none."""
    if isinstance(classified, PoisonText):
        return Rejected(decoded.record, "poison", f"the model fails on this text: {classified.error}")
    return ScoredMessage(decoded, next(scores), classified.was_truncated)


def _with_headers(outgoing: OutgoingRecord, headers: Headers) -> OutgoingRecord:
    return replace(outgoing, headers=(*outgoing.headers, *headers)) if headers else outgoing
