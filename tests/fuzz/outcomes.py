"""What becomes of records on the shipped model, from decoding to what would be published: the fuzzer's path, in one call."""

import json
from datetime import UTC, datetime

from worker.contracts.outbound import ModelInfo
from worker.core.decode import decode_record
from worker.core.escalation import parse_escalation_policy
from worker.core.escalation_states import EscalationStates
from worker.core.events import EventBuilder, ScoredMessage, judged_message_of
from worker.core.records import Decoded, OutgoingRecord, Record, Rejected, TopicNames
from worker.inference.executor import InferenceExecutor, PoisonText
from worker.inference.model_bundle import DEFAULT_BUNDLE, load_model_bundle
from worker.inference.onnx_classifier import OnnxClassifier
from worker.settings import DEFAULT_POLICY

BUNDLE = load_model_bundle(DEFAULT_BUNDLE)
POLICY = parse_escalation_policy(DEFAULT_POLICY.read_text("utf-8"), source="default")
SCORER = BUNDLE.scorer(POLICY.weights)
INFERENCE = InferenceExecutor(OnnxClassifier(BUNDLE, threads=1), max_padded_tokens=1024, max_texts=8)
EVENTS = EventBuilder(
    topics=TopicNames("in", "emotions", "escalations", "dlq"),
    model=ModelInfo(name="m", version="1", digest="d"),
    worker_version="0",
    label_order=BUNDLE.manifest.labels,
    publishes_probabilities=True,
)
NOW = datetime(2026, 9, 14, tzinfo=UTC)
NEIGHBOUR = Record("in", 0, 1, 0, b"c", '{"message_id": "n", "chat_id": "c", "text": "спасибо"}'.encode(), ())


def outcomes_of(records: list[Record]) -> tuple[list[OutgoingRecord], list[OutgoingRecord]]:
    """Return the dead letters and the emotion events of the records, having judged each event's message."""
    found = [decode_record(record) for record in records]
    decoded = [each for each in found if isinstance(each, Decoded)]
    rejected = [each for each in found if isinstance(each, Rejected)]
    states, events = EscalationStates(POLICY, max_chats=10), []
    for each, classified in zip(decoded, INFERENCE.classify_texts([each.message.text for each in decoded]), strict=True):
        if isinstance(classified, PoisonText):
            rejected.append(Rejected(each.record, "poison", classified.error))
            continue
        scored = ScoredMessage(each, SCORER.score(classified.logits), classified.was_truncated)
        state, decision = states.judge(each.record.topic_partition, each.message.chat_id, judged_message_of(scored))
        events.append(EVENTS.emotion_record(scored, facts=state.facts, classified_at=NOW))
        if decision is not None:
            EVENTS.escalation_record(scored, decision, raised_at=NOW)
    for event in events:
        json.loads(event.value or b"")
    return [EVENTS.dead_letter_record(each) for each in rejected], events
