"""From any record to a verdict and its event: nothing raises, and what comes out is UTF-8 JSON."""

import json
from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from tests.support.records import make_record
from worker.contracts.outbound import ModelInfo
from worker.core.decode import decode_record
from worker.core.escalation import ChatFacts
from worker.core.events import EventBuilder, ScoredMessage, judged_message_of
from worker.core.records import Decoded, TopicNames
from worker.core.scoring import Score

EVENTS = EventBuilder(
    topics=TopicNames("in", "emotions", "escalations", "dlq"),
    model=ModelInfo(name="m", version="1", digest="d"),
    worker_version="0",
    label_order=(),
)
CALM = Score(emotions=(), negativity=0.0, probabilities=())
NOW = datetime(2026, 9, 14, tzinfo=UTC)

FIELDS = ("message_id", "chat_id", "text", "author", "operator_id", "sent_at", "channel", "x")
moments = st.builds(
    "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}{}{}".format,
    st.integers(0, 9999),
    *(st.integers(0, most) for most in (13, 32, 24, 60, 60)),
    st.sampled_from(["", ".5", ".999999999999"]),
    st.sampled_from(["Z", "z", "+14:00", "-14:00", "+23:59", "-23:59", "+24:00", "-00:00"]),
)
any_text = st.text(st.characters(exclude_categories=()), max_size=12)  # lone surrogates, NUL and all else
raw_json = st.one_of(
    any_text.map(json.dumps),
    moments.map(json.dumps),
    st.sampled_from(["null", "true", "NaN", "-Infinity", "1e999", "9" * 5000, "[" * 300, "[" * 150 + "]" * 150, '{"a":' * 300]),
    st.sampled_from(['"client"', '"operator"', '"\\ud800"', '"\\ud83d\\ude21"', '" "', '"' + "é" * 8193 + '"']),
)


def chat_of(fields):
    """Later fields of a name win: JSON is allowed to say a thing twice."""
    pairs = [*dict.fromkeys(FIELDS[:3], '"ж"').items(), *fields]
    return "{" + ",".join(f'"{name}": {value}' for name, value in pairs) + "}"


almost_chats = st.lists(st.tuples(st.sampled_from(FIELDS), raw_json), max_size=6).map(chat_of)
values = st.none() | st.binary(max_size=60) | almost_chats.map(lambda text: text.encode("utf-8", "surrogatepass"))
header_keys = st.binary(max_size=6).map(lambda raw: raw.decode("utf-8", "surrogateescape"))
records = st.builds(
    make_record,
    values,
    key=st.none() | st.binary(max_size=6),
    headers=st.lists(st.tuples(header_keys, st.none() | st.binary(max_size=6)), max_size=3).map(tuple),
    timestamp_ms=st.integers(-(2**63), 2**63 - 1),
)


@given(records)
def test_every_record_becomes_an_event_or_a_dead_letter_of_the_same_bytes(record):
    found = decode_record(record)
    if not isinstance(found, Decoded):
        letter = EVENTS.dead_letter_record(found)
        assert (letter.key, letter.value, letter.headers[: len(record.headers)]) == (record.key, record.value, record.headers)
        assert all(value is not None for _, value in letter.headers[len(record.headers) :])
        return
    scored = ScoredMessage(found, CALM, was_truncated=False)
    judged = judged_message_of(scored)
    assert judged.sent_at_s == judged.sent_at_s  # a moment that can be compared
    event = EVENTS.emotion_record(scored, facts=ChatFacts(), classified_at=NOW)
    written = json.loads(event.value)
    assert (written["chat_id"], event.key) == (found.message.chat_id, found.message.chat_id.encode())
    assert datetime.fromisoformat(written["sent_at"]) == judged.sent_at
