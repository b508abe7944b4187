"""The board's picture: who is in trouble, since when, what became of an escalation, and that all of it stays bounded."""

import random
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.board_stand import heard, raised
from worker.board.state import POINTS_A_CHAT, TEXT_CHARS, TEXTS_A_CHAT, BoardState
from worker.board.window import MAX_ROWS, Source, Viewer, picture_of
from worker.contracts.inbound import ChatMessage

NOW_S = 1_800_000_000.0


def hear(state, chat, negativity, *labels, ago_s, **more):
    state.hear(heard(chat, negativity, *labels, ago_s=ago_s, now_s=NOW_S, **more), now_s=NOW_S)


def escalate(state, chat, *, ago_s, severity=0.9, **more):
    state.escalate(raised(chat, severity, ago_s=ago_s, now_s=NOW_S, **more))


def picture(state, now_s=NOW_S):
    return picture_of(state, now_s, source=Source("live", NOW_S), lag=None)


def order(state, now_s=NOW_S):
    return [each.chat_id for each in picture(state, now_s).chats]


def levels(state, now_s=NOW_S):
    return {each["id"]: each["level"] for each in Viewer().next_message(picture(state, now_s))["rows"]}


def outcomes(state, now_s=NOW_S):
    picture(state, now_s)
    return [(each.outcome, each.taken_by) for each in state.escalations()]


def test_chats_in_trouble_come_first_the_most_severe_and_recent_at_the_top():
    state = BoardState()
    hear(state, "calm", 0.1, "gratitude", ago_s=1)
    hear(state, "tense", 0.6, "annoyance", ago_s=2)
    escalate(state, "severe", severity=0.97, ago_s=30)
    escalate(state, "mild", severity=0.6, ago_s=20)
    escalate(state, "old", severity=0.97, ago_s=1200)
    assert order(state) == ["severe", "mild", "old", "tense", "calm"]
    assert levels(state) == {"severe": "trouble", "mild": "trouble", "old": "trouble", "tense": "tense", "calm": "calm"}


def test_several_harsh_messages_are_trouble_without_an_escalation():
    state = BoardState()
    for ago_s in (60, 40, 20):
        hear(state, "chat", 0.9, "anger", ago_s=ago_s)
    (chat,) = picture(state).chats
    assert chat.trouble_since_s(NOW_S) == pytest.approx(NOW_S - 40)


def test_an_operators_messages_do_not_make_trouble():
    state = BoardState()
    for ago_s in (60, 40, 20):
        hear(state, "chat", 0.95, "anger", author="operator", ago_s=ago_s)
    assert levels(state) == {"chat": "calm"}


def test_another_operator_ends_the_trouble_and_answers_the_escalation():
    state = BoardState()
    hear(state, "chat", 0.95, "anger", operator="op-a", ago_s=100)
    escalate(state, "chat", operator="op-a", ago_s=100)
    assert outcomes(state) == [("waiting", None)]
    hear(state, "chat", 0.0, "neutral", author="operator", operator="op-b", ago_s=40)
    assert outcomes(state) == [("handed_over", "op-b")]
    assert levels(state) == {"chat": "calm"}


def test_a_client_who_calms_down_ends_the_trouble():
    state = BoardState()
    escalate(state, "chat", ago_s=100)
    for ago_s in (80, 60, 40):
        hear(state, "chat", 0.0, "gratitude", ago_s=ago_s)
    assert outcomes(state) == [("calmed", None)]
    assert levels(state) == {"chat": "calm"}


def test_silence_ends_the_trouble_by_itself():
    state = BoardState()
    escalate(state, "chat", severity=0.9, ago_s=0)
    assert outcomes(state) == [("waiting", None)]
    assert outcomes(state, NOW_S + 3600) == [("silent", None)]
    assert levels(state, NOW_S + 3600) == {"chat": "calm"}


def test_repeats_change_nothing():
    state = BoardState()
    event, escalation = heard("chat", 0.9, "anger", ago_s=5, now_s=NOW_S), raised("chat", ago_s=5, now_s=NOW_S)
    for _ in range(3):
        state.hear(event, now_s=NOW_S)
        state.escalate(escalation)
    (chat,) = picture(state).chats
    assert len(chat.points) == 1
    assert len(state.escalations()) == 1


def test_what_is_remembered_is_bounded():
    state = BoardState(max_chats=50)
    for number in range(200):
        hear(state, f"chat-{number}", 0.5, ago_s=200 - number)
    escalate(state, "chat-151", ago_s=40)
    for number in range(200, 260):
        hear(state, f"chat-{number}", 0.1, ago_s=1)
    assert len(state) == 50
    assert outcomes(state) == [("silent", None)]  # of a chat that is forgotten
    for number in range(600):
        escalate(state, f"chat-{number % 300}", ago_s=0)
    assert len(state.escalations()) == 500
    for _ in range(100):
        hear(state, "chat-259", 0.5, ago_s=0)
        state.read(ChatMessage(message_id="m", chat_id="chat-259", text="а" * 1000))
    chat = next(each for each in state.chats if each.chat_id == "chat-259")
    assert (len(chat.points), len(chat.texts)) == (POINTS_A_CHAT, TEXTS_A_CHAT)
    assert all(len(text) <= TEXT_CHARS for _, text in chat.texts)


def changes_of_operator(steps):
    return 1 + sum(before[2] != after[2] for before, after in pairwise(steps))


moments = st.lists(
    st.tuples(st.sampled_from("mmmme"), st.floats(0, 1), st.sampled_from(["op-a", "op-a", "op-b"])), min_size=1, max_size=20
).filter(lambda steps: sum(kind == "e" for kind, _, _ in steps) <= 8 and changes_of_operator(steps) <= 6)


@given(moments, st.integers(0, 10_000))
def test_the_two_topics_may_be_read_in_any_order(steps, seed):
    emotions, escalations = [], []
    for place, (kind, strength, operator) in enumerate(steps):
        ago_s = 60.0 * (len(steps) - place)
        emotions.append(heard("chat", strength, ago_s=ago_s, operator=operator, now_s=NOW_S))
        if kind == "e":
            escalations.append(raised("chat", strength, ago_s=ago_s, operator=operator, now_s=NOW_S))
    pictures = []
    for tail in (False, True):
        state, waiting = BoardState(), {each.evidence[0].sent_at: each for each in escalations}
        lazy = random.Random(seed)
        for event in emotions:
            state.hear(event, now_s=NOW_S)
            if event.sent_at in waiting and not tail and lazy.random() < 0.7:
                state.escalate(waiting.pop(event.sent_at))
        for event in waiting.values():
            state.escalate(event)
        (chat,) = picture(state).chats
        told = sorted((each.at_s, each.outcome, each.settled_s, each.taken_by) for each in state.escalations())
        pictures.append((chat.trouble_since_s(NOW_S), chat.operator_id, told))
    assert pictures[0] == pictures[1]


def test_a_viewer_is_sent_everything_once_and_then_only_changes():
    state, viewer = BoardState(), Viewer()
    for number in range(100):
        hear(state, f"chat-{number}", 0.3, ago_s=100 - number)
    escalate(state, "chat-7", ago_s=1)
    first = viewer.next_message(picture(state))
    assert len(first["rows"]) == len(first["rows_order"]) == MAX_ROWS
    assert first["rows_order"][0] == "chat-7"
    assert (first["chats"], first["trouble"], first["waiting"], first["matches"]) == (100, 1, 1, 100)
    second = viewer.next_message(picture(state))
    assert not {"rows", "rows_order", "escalations", "escalations_order"} & second.keys()
    hear(state, "chat-70", 0.9, "anger", ago_s=0)
    third = viewer.next_message(picture(state))
    assert [each["id"] for each in third["rows"]] == ["chat-70"]
    assert third["rows_order"][:2] == ["chat-7", "chat-70"]


def test_a_viewer_who_looks_for_an_operator_sees_that_ones_chats_and_escalations():
    state = BoardState()
    hear(state, "bank-1", 0.1, operator="op-anna", ago_s=3)
    hear(state, "bank-2", 0.1, operator="op-timur", ago_s=2)
    escalate(state, "bank-2", operator="op-timur", ago_s=2)
    told = Viewer("  OP-Anna ").next_message(picture(state))
    assert told["rows_order"] == ["bank-1"]
    assert told["escalations_order"] == []
    assert Viewer("BANK").next_message(picture(state))["matches"] == 2
    assert Viewer("nobody").next_message(picture(state))["rows_order"] == []


def test_rates_are_of_the_last_minutes():
    state = BoardState()
    for number in range(120):
        hear(state, "chat", 0.0, "gratitude", ago_s=number / 2, latency_s=0.1)
    hear(state, "other", 0.0, "anger", ago_s=550, latency_s=9.0)
    hear(state, "other", 0.0, "anger", author="operator", ago_s=30, latency_s=0.1)
    hear(state, "other", 0.0, "anger", ago_s=4000, latency_s=0.1)
    summary = picture(state).summary
    assert summary["rate"] == pytest.approx(2.0, abs=0.1)
    assert summary["tones"] == {"positive": 120, "negative": 1}
    assert summary["p50"] == summary["p95"] == 0.1
    assert picture(state, NOW_S + 3600).summary["p50"] is None
