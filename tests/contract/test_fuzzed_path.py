"""The path that `make fuzz` takes works, whether or not the fuzzer is installed."""

import json

import pytest

from tests.fuzz.outcomes import NEIGHBOUR, outcomes_of
from tests.support.records import chat_json, make_record

pytestmark = pytest.mark.model


def test_the_fuzzed_path_labels_refuses_and_escalates():
    hostile = make_record(chat_json("Вы что, издеваетесь?! Верните деньги, мошенники!"), offset=2)
    letters, events = outcomes_of([make_record(b"{", offset=0), NEIGHBOUR, hostile])
    assert [dict(each.headers)["dlq.reason"] for each in letters] == [b"not_json"]
    assert [json.loads(each.value)["message_id"] for each in events] == ["n", "m1"]
    assert json.loads(events[1].value)["tone"] == "negative"
