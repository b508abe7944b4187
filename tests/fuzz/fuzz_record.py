"""Looks for a record that breaks the worker, led by coverage: `make fuzz SECONDS=300`.

A record's value is either arbitrary bytes or almost a chat message, with arbitrary key, headers and timestamp. It goes through
decoding, the shipped tokenizer and model, scoring and event building, beside a good neighbour. What escapes, or leaves either
of the two without an outcome, is a finding; so is what takes longer than `-timeout`.
"""

import json
import sys
from datetime import UTC, datetime

import atheris

with atheris.instrument_imports(include=["worker"]):
    from worker.contracts.outbound import ModelInfo
    from worker.core.decode import decode_record
    from worker.core.escalation import EscalationStates, parse_escalation_policy
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
FIELDS = ("message_id", "chat_id", "text", "author", "operator_id", "sent_at", "channel", "x")


def fuzz_record(fuzzed: bytes) -> None:
    """Take one fuzzed record and its neighbour from decoding to their outgoing records."""
    record = record_of(atheris.FuzzedDataProvider(fuzzed))
    letters, events = outcomes_of([record, NEIGHBOUR])
    if len(letters) + len(events) != 2:
        raise AssertionError("a record without an outcome")
    for letter in letters:
        if (letter.key, letter.value, letter.headers[: len(record.headers)]) != (record.key, record.value, record.headers):
            raise AssertionError("a dead letter that is not its original")


def record_of(given: "atheris.FuzzedDataProvider") -> Record:
    """Return the record that the fuzzer's bytes stand for."""
    headers = tuple(
        (given.ConsumeBytes(6).decode("utf-8", "surrogateescape"), given.ConsumeBytes(6) or None)
        for _ in range(given.ConsumeIntInRange(0, 3))
    )
    timestamp_ms = given.ConsumeIntInRange(-(2**63), 2**63 - 1) if given.ConsumeBool() else 1_789_000_000_000
    key = given.ConsumeBytes(8) if given.ConsumeBool() else None
    return Record("in", 0, 0, timestamp_ms, key, value_of(given), headers)


def value_of(given: "atheris.FuzzedDataProvider") -> bytes | None:
    """Return raw bytes, or a chat message with some fields spoilt."""
    if given.ConsumeBool():
        return given.ConsumeBytes(sys.maxsize) or None
    fields = {"message_id": '"m"', "chat_id": '"c"', "text": '"ж"'}
    for _ in range(given.ConsumeIntInRange(0, 4)):
        name = FIELDS[given.ConsumeIntInRange(0, len(FIELDS) - 1)]
        size = given.ConsumeIntInRange(0, 200)
        fields[name] = json.dumps(given.ConsumeUnicode(size)) if given.ConsumeBool() else given.ConsumeUnicodeNoSurrogates(size)
    fields["text"] = json.dumps(given.ConsumeUnicodeNoSurrogates(sys.maxsize)) if given.ConsumeBool() else fields["text"]
    return ("{" + ",".join(f'"{name}": {value}' for name, value in fields.items()) + "}").encode("utf-8", "surrogatepass")


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
        events.append(EVENTS.emotion_record(scored, classified_at=NOW))
        decision = states.judge(each.record.topic_partition, each.message.chat_id, judged_message_of(scored))
        if decision is not None:
            EVENTS.escalation_record(scored, decision, raised_at=NOW)
    for event in events:
        json.loads(event.value or b"")
    return [EVENTS.dead_letter_record(each) for each in rejected], events


if __name__ == "__main__":
    atheris.Setup(sys.argv, fuzz_record)
    atheris.Fuzz()
