import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.records import chat_json, judged, make_record
from worker.contracts.outbound import EmotionEvent, EscalationEvent, ModelInfo
from worker.core.decode import decode_record
from worker.core.escalation import ChatFacts, EscalationDecision
from worker.core.events import EventBuilder, ScoredMessage, judged_message_of
from worker.core.label_state import timestamp_of
from worker.core.records import Rejected, TopicNames
from worker.core.scoring import LabelProbability, Score

NOW = datetime(2026, 9, 14, 12, tzinfo=UTC)
TOPICS = TopicNames("chat.messages", "chat.emotions", "chat.escalations", "chat.messages.dlq")
SCORE = Score((LabelProbability("anger", 0.9, 0.3),), negativity=0.93, probabilities=(0.9, 0.1))


def builder(**overrides):
    model = ModelInfo(name="m", version="1", digest="sha256:0")
    return EventBuilder(TOPICS, model=model, worker_version="9", label_order=("anger", "joy"), **overrides)


def scored(value=None, **record):
    return ScoredMessage(decode_record(make_record(value or chat_json("Верните деньги"), **record)), SCORE, was_truncated=False)


def test_an_emotion_event_is_keyed_by_chat_and_reads_back_as_its_contract():
    outgoing = builder().emotion_record(scored(partition=2, offset=41), facts=ChatFacts(), classified_at=NOW)
    assert (outgoing.topic, outgoing.key) == ("chat.emotions", b"chat-1")
    event = EmotionEvent.model_validate_json(outgoing.value)
    assert event.event_id == "emotion:chat.messages-2-41"
    assert (event.tone, event.negativity) == ("negative", 0.93)
    assert [each.label for each in event.emotions] == ["anger"]
    assert event.source.model_dump() == {"topic": "chat.messages", "partition": 2, "offset": 41}
    assert event.sent_at == timestamp_of(make_record(b"").timestamp_ms)


def test_the_text_is_not_in_the_event():
    assert "Верните" not in builder().emotion_record(scored(), facts=ChatFacts(), classified_at=NOW).value.decode()


def test_probabilities_are_added_only_when_asked_for():
    assert "probabilities" not in json.loads(builder().emotion_record(scored(), facts=ChatFacts(), classified_at=NOW).value)
    asked = json.loads(
        builder(publishes_probabilities=True).emotion_record(scored(), facts=ChatFacts(), classified_at=NOW).value
    )
    assert asked["probabilities"] == {"anger": 0.9, "joy": 0.1}


def test_ids_depend_on_the_position_alone():
    first = json.loads(builder().emotion_record(scored(), facts=ChatFacts(), classified_at=NOW).value)
    again = json.loads(builder().emotion_record(scored(), facts=ChatFacts(), classified_at=datetime.now(UTC)).value)
    other = json.loads(builder().emotion_record(scored(offset=1), facts=ChatFacts(), classified_at=NOW).value)
    assert first["event_id"] == again["event_id"] != other["event_id"]


def test_an_escalation_event_names_operator_reason_and_evidence():
    decision = EscalationDecision("op-1", "sustained", 0.6, (judged("m0", negativity=0.7), judged("m1", negativity=0.8)))
    outgoing = builder().escalation_record(scored(), decision, raised_at=NOW)
    event = EscalationEvent.model_validate_json(outgoing.value)
    assert (outgoing.topic, outgoing.key) == ("chat.escalations", b"chat-1")
    assert (event.operator_id, event.reason, event.action) == ("op-1", "sustained", "reassign_operator")
    assert [each.message_id for each in event.evidence] == ["m0", "m1"]


@given(
    st.binary() | st.none(),
    st.binary() | st.none(),
    st.lists(st.tuples(st.text(), st.binary() | st.none())),
)
def test_a_dead_letter_keeps_key_value_and_headers_byte_for_byte(key, value, headers):
    record = make_record(value, key=key, headers=tuple(headers), partition=3, offset=8)
    outgoing = builder().dead_letter_record(Rejected(record, "not_json", "why"))
    assert (outgoing.key, outgoing.value) == (key, value)
    assert outgoing.headers[: len(headers)] == tuple(headers)
    assert dict(outgoing.headers[len(headers) :]) == {
        "dlq.reason": b"not_json",
        "dlq.error": b"why",
        "dlq.topic": b"chat.messages",
        "dlq.partition": b"3",
        "dlq.offset": b"8",
        "dlq.timestamp": str(record.timestamp_ms).encode(),
        "dlq.worker_version": b"9",
    }


@pytest.mark.parametrize("timestamp_ms", [-1, 0, 2**62, -(2**62)])
def test_a_timestamp_that_no_calendar_holds_does_no_harm(timestamp_ms):
    message = scored(timestamp_ms=timestamp_ms)
    EmotionEvent.model_validate_json(builder().emotion_record(message, facts=ChatFacts(), classified_at=NOW).value)
    judged_message_of(message)


def test_a_clock_ahead_of_the_record_can_not_make_later_messages_look_late():
    value = chat_json("привет", sent_at="2099-01-01T00:00:00Z")
    judged_message = judged_message_of(scored(value))
    assert judged_message.sent_at_s == timestamp_of(make_record(b"").timestamp_ms).timestamp()
    assert judged_message.sent_at.year == 2099
