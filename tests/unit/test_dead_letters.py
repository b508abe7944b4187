import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.records import chat_json, make_record
from worker.contracts.outbound import ModelInfo
from worker.core.dead_letters import (
    Redriven,
    corrected,
    dead_letter_of,
    parse_corrections,
    parse_position,
    redrive_of,
    shown_value,
)
from worker.core.events import EventBuilder
from worker.core.failures import DeadLetterError
from worker.core.records import Rejected, TopicNames, TopicPartition

TOPICS = TopicNames("chat.messages", "chat.emotions", "chat.escalations", "chat.messages.dlq")
EVENTS = EventBuilder(TOPICS, model=ModelInfo(name="m", version="1", digest="d"), worker_version="9", label_order=())


def letter_of(value, **record):
    """Return the dead letter of a record as the worker writes it and as it stands in the dead-letter topic."""
    written = EVENTS.dead_letter_record(Rejected(make_record(value, **record), "schema", "text: missing"))
    return dead_letter_of(make_record(written.value, key=written.key, headers=written.headers, topic=written.topic, offset=5))


def test_a_dead_letter_says_why_and_where_it_was():
    letter = letter_of(b"{}", partition=3, offset=17, timestamp_ms=1000)
    assert (letter.reason, letter.error) == ("schema", "text: missing")
    assert (letter.origin, letter.origin_offset, letter.origin_timestamp_ms) == (TopicPartition("chat.messages", 3), 17, 1000)
    assert (letter.position, letter.origin_position, letter.size_bytes) == ("0-5", "chat.messages-3-17", 2)


def test_a_record_that_no_worker_wrote_is_a_dead_letter_of_unknown_reason():
    letter = dead_letter_of(make_record(None, headers=(("dlq.partition", b"many"), ("dlq.error", None))))
    assert (letter.reason, letter.error, letter.origin_position, letter.size_bytes) == ("unknown", "", "unknown", 0)
    assert redrive_of(letter, input_topic="chat.messages").outgoing.partition is None


def test_what_goes_back_is_the_original_and_one_header_more():
    headers = (("trace", b"\xff"), ("dlq.reason", b"a lie"), ("trace", None))
    back = redrive_of(letter_of(b"{}", key=b"k", headers=headers, partition=3, timestamp_ms=1000), input_topic="chat.messages")
    outgoing = back.outgoing
    assert (outgoing.topic, outgoing.key, outgoing.value, outgoing.partition) == ("chat.messages", b"k", b"{}", 3)
    assert outgoing.headers == (("trace", b"\xff"), ("trace", None), ("dlq.redriven_from", b"chat.messages.dlq-0-5"))
    assert back.timestamp_ms == 1000


def test_what_was_refused_twice_names_the_second_dead_letter_only():
    first = redrive_of(letter_of(b"{}"), input_topic="chat.messages").outgoing
    second = redrive_of(letter_of(b"{}", headers=first.headers), input_topic="chat.messages").outgoing
    assert [name for name, _ in second.headers] == ["dlq.redriven_from"]


def test_an_original_without_a_timestamp_gets_a_new_one_and_one_of_another_topic_goes_where_its_key_says():
    back = redrive_of(letter_of(b"{}", timestamp_ms=-1, topic="old.messages", partition=3), input_topic="chat.messages")
    assert back.timestamp_ms is None
    assert back.outgoing.partition is None


def test_a_corrected_value_keeps_the_key_or_is_given_its_chat():
    back = redrive_of(letter_of(b"{}", key=b"k", partition=3), input_topic="chat.messages")
    mended = corrected(back, chat_json("спасибо")).outgoing
    assert (mended.key, mended.partition, mended.value) == (b"k", 3, chat_json("спасибо"))
    keyless = redrive_of(letter_of(b"{}", key=None, partition=3), input_topic="chat.messages")
    mended = corrected(keyless, chat_json("спасибо", chat_id="чат")).outgoing
    assert (mended.key, mended.partition) == ("чат".encode(), None)


def test_a_corrected_value_that_would_be_refused_again_is_refused_without_quoting_it():
    with pytest.raises(DeadLetterError, match="0-5 would be refused again: author") as refused:
        corrected(redrive_of(letter_of(b"{}"), input_topic="chat.messages"), chat_json("тайна", author="boss"))
    assert "тайна" not in str(refused.value)


@pytest.mark.parametrize("position", ["2-17", " 2-17 ", "chat.messages.dlq-2-17"])
def test_a_position_is_partition_and_offset(position):
    assert parse_position(position, topic="chat.messages.dlq") == (2, 17)


@pytest.mark.parametrize("position", ["", "17", "chat.messages-2-17", "2-x", "2-٣"])
def test_what_is_no_position_is_refused(position):
    with pytest.raises(DeadLetterError, match="0-17"):
        parse_position(position, topic="chat.messages.dlq")


def test_corrections_are_read_as_they_were_listed():
    values = [chat_json("почему"), b"{broken", None, b"[1]"]
    lines = [
        json.dumps({"position": f"0-{i}", "reason": "x", "value": shown_value(each)}).encode() for i, each in enumerate(values)
    ]
    found = parse_corrections([*lines[:2], b" \n"], topic="t", source="file")
    assert json.loads(found[0, 0]) == json.loads(values[0])
    assert found[0, 1] == b"{broken"
    assert (shown_value(None), shown_value(b"[1]"), shown_value(b"\xff")) == (None, "[1]", "\ufffd")


@pytest.mark.parametrize("line", [b"{", b"[]", b"7", b'{"position": "0-1"}', b'{"position": 1, "value": 2}', b"[" * 100_000])
def test_a_line_that_is_no_correction_is_named(line):
    with pytest.raises(DeadLetterError, match="file, line 2"):
        parse_corrections([b'{"position": "0-0", "value": "{}"}', line], topic="t", source="file")


def test_a_file_without_corrections_is_refused():
    with pytest.raises(DeadLetterError, match="no corrected values"):
        parse_corrections([b"\n"], topic="t", source="file")


offsets = st.sets(st.integers(0, 400), max_size=60)


@given(offsets, st.integers(0, 50), offsets)
def test_what_was_sent_back_is_remembered_through_its_note(first, start, second):
    redriven = Redriven(start).including(first)
    restored = Redriven.from_note(redriven.next_offset, redriven.note()).including(second)
    assert all((each in restored) == (each < start or each in first | second) for each in range(500))


def test_a_note_is_empty_when_nothing_lies_beyond_the_offset():
    redriven = Redriven().including(range(7))
    assert (redriven.next_offset, redriven.note()) == (7, "")


def test_a_note_that_no_broker_would_store_is_refused_with_the_way_out():
    scattered = random.Random(1).sample(range(100_000), 50_000)
    with pytest.raises(DeadLetterError, match="--all"):
        Redriven().including(scattered).note()


@pytest.mark.parametrize("note", ["somebody else's", "абв", "00000"])
def test_a_note_of_somebody_else_is_refused(note):
    with pytest.raises(DeadLetterError, match="--group"):
        Redriven.from_note(5, note)


def test_what_retention_has_removed_costs_nothing_and_counts_as_sent_back():
    redriven = Redriven(3).including([5, 50_000_000, 50_000_002]).from_offset(50_000_000)
    assert (redriven.next_offset, redriven.later) == (50_000_001, frozenset({50_000_002}))
    assert redriven.from_offset(7) == redriven
