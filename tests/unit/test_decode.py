import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.records import chat_json, make_record
from worker.core.decode import decode_record
from worker.core.records import Decoded, Rejected

MESSAGE = {"message_id": "m1", "chat_id": "c1", "text": "Где мой заказ?"}


def decode(**fields):
    return decode_record(make_record(json.dumps({**MESSAGE, **fields}).encode()))


def test_a_minimal_message_gets_the_defaults():
    decoded = decode()
    assert isinstance(decoded, Decoded)
    assert decoded.message.author == "client"
    assert decoded.message.operator_id is None
    assert decoded.message.sent_at is None


def test_text_is_trimmed_before_the_limits_are_checked():
    assert decode(text=" \n" + "я" * 8192 + " ").message.text == "я" * 8192
    assert isinstance(decode(text="я" * 8193), Rejected)
    assert isinstance(decode(text=" \t\n"), Rejected)


def test_unknown_fields_and_nulls_of_optional_fields_are_ignored():
    decoded = decode(priority=3, author=None, operator_id=None, sent_at=None, channel=None)
    assert isinstance(decoded, Decoded)
    assert decoded.message.author == "client"


def test_a_blank_operator_id_means_none():
    assert decode(operator_id="  ").message.operator_id is None


def test_sent_at_keeps_its_zone():
    decoded = decode(sent_at="2026-09-14T12:00:00.5+03:00")
    assert decoded.message.sent_at == datetime(2026, 9, 14, 9, 0, 0, 500_000, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "tombstone"),
        (b"", "not_json"),
        (b"plain words", "not_json"),
        (b'{"message_id": "m1", "chat_id', "not_json"),
        (b"\xff\xfe{}", "not_json"),
        (b'{"message_id": "m1", "chat_id": "c1", "text": "\\ud800"}', "not_json"),
        (b"[" * 100_000, "not_json"),
        (b"[]", "schema"),
        (b"42", "schema"),
        (b"null", "schema"),
        (chat_json("x", chat_id=""), "schema"),
        (chat_json("x", chat_id="c" * 129), "schema"),
        (chat_json("x", message_id=7), "schema"),
        (chat_json("x", author="supervisor"), "schema"),
        (chat_json("x", sent_at="2026-09-14T12:00:00"), "schema"),
        (chat_json("x", sent_at="2026-09-14"), "schema"),
        (chat_json("x", sent_at=1_789_000_000), "schema"),
        (chat_json("x", sent_at="2026-13-45T12:00:00Z"), "schema"),
        (b'{"message_id": "m1", "chat_id": "c1"}', "schema"),
    ],
)
def test_what_can_not_be_read_is_rejected_with_a_reason(value, reason):
    found = decode_record(make_record(value))
    assert isinstance(found, Rejected)
    assert found.reason == reason
    assert found.error


def test_the_error_names_the_field_but_never_quotes_the_text():
    found = decode(text="тайна" * 3000, author="тайна", sent_at="тайна", chat_id=["тайна"])
    assert "text" in found.error
    assert "author" in found.error
    assert "тайна" not in found.error


@given(st.binary(max_size=300))
def test_no_bytes_raise(value):
    assert isinstance(decode_record(make_record(value)), Rejected)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@given(
    st.fixed_dictionaries({}, optional=dict.fromkeys([*MESSAGE, "author", "operator_id", "sent_at", "channel"], json_values))
)
def test_no_json_raises(fields):
    found = decode_record(make_record(json.dumps({**MESSAGE, **fields}).encode()))
    assert isinstance(found, Decoded | Rejected)
