"""What is remembered of chats, rebuilt from their labels: decisions after a restart are those of a run that never stopped."""

from collections import deque
from dataclasses import dataclass
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.records import START_S, chat_json, make_record
from worker.contracts.label_state import STATE_HEADER
from worker.contracts.outbound import ModelInfo
from worker.core.decode import decode_record
from worker.core.escalation import ChatState, parse_escalation_policy
from worker.core.escalation_states import EscalationStates
from worker.core.events import EventBuilder, ScoredMessage, judged_message_of
from worker.core.label_state import published_label
from worker.core.recall import PartitionRecall
from worker.core.records import OutgoingRecord, TopicNames
from worker.core.scoring import LabelProbability, Score

POLICY = parse_escalation_policy(
    """
cooldown_s = 50.0
[weights]
anger = 1.0
[severe_message]
min_negativity = 0.9
[sustained]
min_score = 1.2
min_messages = 2
min_negativity = 0.5
message_decay = 0.9
half_life_s = 100.0
window_s = 30.0
max_messages = 3
""",
    source="test",
)
BUILDER = EventBuilder(
    TopicNames("chat.messages", "chat.emotions", "chat.escalations", "chat.messages.dlq"),
    model=ModelInfo(name="m", version="1", digest="d"),
    worker_version="0",
    label_order=("anger",),
)
NOW = datetime.fromtimestamp(START_S, tz=UTC)


@dataclass(frozen=True)
class Step:
    """A message of a partition: who says what, how long after the one before, and how wrong its clocks are."""

    chat: str
    message_id: str
    author: str
    operator_id: str | None
    negativity: float
    pause_s: float
    record_skew_s: float
    sent_before_s: float
    gap: int


steps = st.lists(
    st.builds(
        Step,
        chat=st.sampled_from("ab"),
        message_id=st.sampled_from([f"m{i}" for i in range(8)]),
        author=st.sampled_from(["client", "client", "client", "operator"]),
        operator_id=st.sampled_from([None, None, None, None, "op-1", "op-2"]),
        negativity=st.sampled_from([0.2, 0.5, 0.6, 0.65, 0.7, 0.95]),
        pause_s=st.sampled_from([0.0, 1.0, 1.0, 5.0, 10.0, 21.0, 31.0, 51.0]),
        record_skew_s=st.sampled_from([0.0, 0.0, -3.5, 4.25]),
        sent_before_s=st.sampled_from([0.0, 0.0, 0.5, 7.0, 40.0, -1.0]),
        gap=st.sampled_from([1, 1, 2]),
    ),
    min_size=4,
    max_size=30,
)


def scored_messages(chosen: list[Step]) -> list[ScoredMessage]:
    found, at_s, offset = [], START_S, 0
    for step in chosen:
        at_s, offset = at_s + step.pause_s, offset + step.gap
        recorded_s = at_s + step.record_skew_s
        value = chat_json(
            "…",
            message_id=step.message_id,
            chat_id=step.chat,
            author=step.author,
            operator_id=step.operator_id,
            sent_at=datetime.fromtimestamp(recorded_s - step.sent_before_s, tz=UTC).isoformat(),
        )
        decoded = decode_record(make_record(value, offset=offset, timestamp_ms=round(recorded_s * 1000)))
        labels = (LabelProbability("anger", step.negativity, 0.5),) if step.negativity > 0.5 else ()
        found.append(ScoredMessage(decoded, Score(labels, step.negativity, (step.negativity,)), was_truncated=False))
    return found


def judge_all(states: EscalationStates, messages: list[ScoredMessage]) -> list[tuple[ChatState, object]]:
    """Return the chat's state after each message, and the decision on it."""
    found = []
    for each in messages:
        found.append(states.judge(0, each.decoded.message.chat_id, judged_message_of(each)))
        states.keep()
    return found


def labels_of(messages: list[ScoredMessage], judged: list[tuple[ChatState, object]]) -> list[OutgoingRecord]:
    return [
        BUILDER.emotion_record(each, facts=state.facts, classified_at=NOW)
        for each, (state, _) in zip(messages, judged, strict=True)
    ]


def recall(labels: list[OutgoingRecord], *, next_offset: int, max_disorder: int = 4) -> PartitionRecall:
    recall = PartitionRecall(POLICY, next_offset=next_offset, max_disorder=max_disorder)
    for each in labels:
        recall.take(published_label(each.headers, each.key, each.value))
    return recall


def states_of(recalled: PartitionRecall) -> EscalationStates:
    states = EscalationStates(POLICY, max_chats=1000)
    states.restore(0, recalled.chats())
    return states


def recorded_s(message: ScoredMessage) -> float:
    return message.decoded.record.timestamp_ms / 1000


@settings(max_examples=400)
@given(steps, st.data())
def test_a_restart_anywhere_goes_on_as_the_run_that_never_stopped(chosen, data):
    messages = scored_messages(chosen)
    unbroken = judge_all(EscalationStates(POLICY, max_chats=1000), messages)
    labels = labels_of(messages, unbroken)
    cut = data.draw(st.integers(0, len(messages)), label="cut")
    # The labels of all records but those that lie more than the horizon before every record to come.
    earliest_s = min(map(recorded_s, messages[cut:]), default=0.0) - POLICY.horizon_s
    first = next((number for number, each in enumerate(messages) if recorded_s(each) >= earliest_s), cut)
    # A crash leaves the labels of its last poll in part, and they come again; the last are of records to come.
    crash = data.draw(st.integers(first, max(first, cut)), label="crash")
    lost_first_copies = data.draw(st.integers(0, 3), label="lost first copies")
    published = [*labels[first:crash][: max(0, crash - first - lost_first_copies)], *labels[max(first, crash - 4) :]]
    next_offset = messages[cut].decoded.record.offset if cut < len(messages) else 10**9
    restored = states_of(recall(published, next_offset=next_offset))
    assert judge_all(restored, messages[cut:]) == unbroken[cut:]


@given(st.permutations(range(6)))
def test_labels_that_a_crash_put_out_of_order_are_taken_in_the_order_of_their_messages(order):
    messages = scored_messages([plain(f"m{i}") for i in range(6)])
    labels = labels_of(messages, judge_all(EscalationStates(POLICY, max_chats=10), messages))
    found = recall([labels[number] for number in order], next_offset=100, max_disorder=6)
    assert [seen_id for seen_id, _ in found.chats()["a"].seen] == [f"m{i}" for i in range(6)]


def plain(message_id: str, **changes) -> Step:
    return Step(
        **{
            "chat": "a",
            "message_id": message_id,
            "author": "client",
            "operator_id": None,
            "negativity": 0.2,
            "pause_s": 1.0,
            "record_skew_s": 0.0,
            "sent_before_s": 0.0,
            "gap": 1,
            **changes,
        }
    )


def test_repeats_are_dropped_and_counted_and_what_will_be_judged_again_is_left_out():
    messages = scored_messages([plain("m1", negativity=0.65), plain("m2"), plain("m3", negativity=0.95)])
    labels = labels_of(messages, judge_all(EscalationStates(POLICY, max_chats=10), messages))
    found = recall([labels[0], labels[0], labels[1], labels[0], labels[1], labels[2]], next_offset=3, max_disorder=1)
    chat = found.chats()["a"]
    assert (found.labels, found.repeats) == (2, 3)
    assert [each.message_id for each in chat.recent] == ["m1", "m2"]
    assert chat.facts.role == "counted"


def test_a_restored_message_is_the_one_that_was_judged_down_to_its_evidence():
    messages = scored_messages([plain("m1", negativity=0.65, sent_before_s=0.123456)])
    judged = judge_all(EscalationStates(POLICY, max_chats=10), messages)
    found = recall(labels_of(messages, judged), next_offset=100)
    assert found.chats()["a"].recent == (judged_message_of(messages[0]),)


def test_labels_are_published_to_the_partition_of_their_input_with_no_text_in_the_header():
    [message] = scored_messages([plain("m1")])
    [label] = labels_of([message], [(ChatState(), None)])
    assert label.partition == message.decoded.record.partition
    assert [name for name, _ in label.headers] == [STATE_HEADER]
    assert "…" not in label.headers[0][1].decode()


@pytest.mark.parametrize(
    ("headers", "key", "value"),
    [
        ((), b"a", b"{}"),
        (((STATE_HEADER, None),), b"a", b"{}"),
        ((("traceparent", b"00"), (STATE_HEADER, b"{}")), None, b"{}"),
        (((STATE_HEADER, b"{}"),), b"a", None),
    ],
)
def test_a_record_without_state_is_no_label_to_restore_from(headers, key, value):
    assert published_label(headers, key, value) is None


def test_silent_chats_begin_afresh_after_the_horizon_and_chats_of_other_partitions_are_left_alone():
    messages = scored_messages([plain("m1", negativity=0.7, operator_id="op-1"), plain("m2", negativity=0.7, pause_s=51.0)])
    (_, first), (state, second) = judge_all(EscalationStates(POLICY, max_chats=10), messages)
    assert (first, second, state.facts.operator_id) == (None, None, None)
    states = EscalationStates(POLICY, max_chats=10)
    states.judge(1, "other", judged_message_of(messages[0]))
    states.keep()
    states.restore(0, recall(labels_of(messages, [(state, None)] * 2), next_offset=9).chats())
    states.restore(0, {})
    assert len(states) == 1


def test_chats_that_had_to_go_before_their_time_are_counted():
    messages = scored_messages([plain("m1", chat="a"), plain("m1", chat="b"), plain("m1", chat="a", pause_s=60.0)])
    states = EscalationStates(POLICY, max_chats=1)
    judge_all(states, messages)
    assert states.take_crowded_out() == 1
    assert states.take_crowded_out() == 0


def test_long_partitions_take_bounded_memory_while_they_are_read_back():
    messages = scored_messages([plain(f"m{i}") for i in range(50)])
    labels = deque(labels_of(messages, judge_all(EscalationStates(POLICY, max_chats=10), messages)))
    found = recall(list(labels), next_offset=1000, max_disorder=5)
    assert found.labels >= 50 - 2 * 5
    assert len(found.chats()["a"].recent) == POLICY.sustained.max_messages


@pytest.mark.parametrize(
    "chosen",
    [
        # Late messages come in after one that will be forgotten, more of them than are kept: it must not push any out.
        [
            plain("m0"),
            plain("m1", pause_s=21.0, sent_before_s=40.0),
            plain("m2"),
            plain("m3"),
            plain("m4", pause_s=28.0, author="operator"),
        ],
        # A record's clock goes back over the end of a long silence: what the silence made forgotten stays forgotten.
        [plain("m0"), plain("m1", pause_s=51.0), plain("m0", pause_s=0.0, record_skew_s=-3.5)],
    ],
    ids=["late messages over the cap", "clock back over a silence"],
)
@pytest.mark.parametrize("first", [0, 1])
def test_clocks_that_disagree_make_no_difference_to_a_restart(chosen, first):
    messages = scored_messages(chosen)
    unbroken = judge_all(EscalationStates(POLICY, max_chats=10), messages)
    last = messages[-1]
    restored = states_of(recall(labels_of(messages, unbroken)[first:], next_offset=last.decoded.record.offset))
    assert judge_all(restored, [last]) == unbroken[-1:]
