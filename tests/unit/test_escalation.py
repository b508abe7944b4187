import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.records import judged
from worker.core.escalation import ChatState, judge_message, parse_escalation_policy, sustained_score
from worker.core.escalation_states import EscalationStates
from worker.core.failures import ConfigurationError
from worker.settings import DEFAULT_POLICY

POLICY_TOML = """
cooldown_s = 600.0
[weights]
anger = 1.0
[severe_message]
min_negativity = 0.8
[sustained]
min_score = 1.2
min_messages = 2
min_negativity = 0.5
message_decay = 0.9
half_life_s = 1000.0
window_s = 3000.0
max_messages = 10
"""
POLICY = parse_escalation_policy(POLICY_TOML, source="test")


def run(*messages, policy=POLICY, state=None):
    state = state or ChatState()
    decisions = []
    for message in messages:
        state, decision = judge_message(policy, state, message)
        decisions.append(decision)
    return state, decisions


def reasons(decisions):
    return [decision.reason if decision else None for decision in decisions]


def test_one_clearly_hostile_message_escalates_at_once():
    _, [decision] = run(judged("m1", negativity=0.9, operator_id="op-1"))
    assert decision.reason == "severe_message"
    assert decision.severity == 0.9
    assert decision.operator_id == "op-1"
    assert [each.message_id for each in decision.evidence] == ["m1"]


def test_slow_souring_escalates_as_sustained_with_the_messages_that_led_to_it():
    messages = [judged("m1", negativity=0.6), judged("m2", negativity=0.1, at_s=10), judged("m3", negativity=0.75, at_s=20)]
    _, decisions = run(*messages)
    assert reasons(decisions) == [None, None, "sustained"]
    assert [each.message_id for each in decisions[-1].evidence] == ["m1", "m3"]
    assert 0.5 <= decisions[-1].severity < 1.0


def test_an_operators_own_bad_mood_does_not_escalate():
    _, decisions = run(
        *(judged(f"m{i}", negativity=1.0, author=author) for i, author in enumerate(["operator", "bot", "system"]))
    )
    assert reasons(decisions) == [None] * 3


def test_one_escalation_within_the_cooldown_and_another_after_it():
    _, decisions = run(*(judged(f"m{i}", negativity=0.9, at_s=at_s) for i, at_s in enumerate([0, 100, 599, 600])))
    assert reasons(decisions) == ["severe_message", None, None, "severe_message"]


def test_a_change_of_operator_starts_afresh():
    _, decisions = run(
        judged("m1", negativity=0.7, operator_id="op-1"),
        judged("m2", author="operator", operator_id="op-2", at_s=5),
        judged("m3", negativity=0.7, at_s=10),
        judged("m4", negativity=0.9, at_s=20),
        judged("m5", negativity=0.9, at_s=30, operator_id="op-3"),
    )
    assert reasons(decisions) == [None, None, None, "severe_message", "severe_message"]
    assert [decision.operator_id for decision in decisions if decision] == ["op-2", "op-3"]


def test_a_duplicate_counts_once():
    _, decisions = run(judged("m1", negativity=0.7), judged("m1", negativity=0.7, at_s=1), judged("m1", negativity=0.9, at_s=2))
    assert reasons(decisions) == [None, None, None]


def test_a_late_message_neither_brings_the_old_operator_back_nor_blames_the_new_one():
    state, decisions = run(
        judged("m1", author="operator", operator_id="op-1"),
        judged("m2", author="operator", operator_id="op-2", at_s=100),
        judged("m3", negativity=1.0, operator_id="op-1", at_s=50),
    )
    assert reasons(decisions) == [None] * 3
    assert state.facts.operator_id == "op-2"


def test_old_messages_fade_and_are_forgotten():
    _, decisions = run(judged("m1", negativity=0.75), judged("m2", negativity=0.75, at_s=2900))
    assert reasons(decisions) == [None, None]
    state, _ = run(judged("m1", negativity=0.75), judged("m2", negativity=0.1, at_s=3001))
    assert [each.message_id for each in state.recent] == ["m2"]


def test_kind_words_in_between_calm_the_sum():
    sour = [judged("m1", negativity=0.65), judged("m9", negativity=0.65, at_s=9)]
    kind = [judged(f"k{i}", at_s=i) for i in range(1, 6)]
    assert reasons(run(*sour)[1]) == [None, "sustained"]
    assert reasons(run(sour[0], *kind, sour[1])[1])[-1] is None


messages = st.lists(
    st.builds(
        judged,
        st.sampled_from([f"m{i}" for i in range(12)]),
        negativity=st.floats(0.0, 1.0),
        at_s=st.floats(0.0, 5000.0),
        recorded_at_s=st.just(5000.0),  # one moment: what the horizon forgets may come again
        author=st.sampled_from(["client", "operator"]),
        operator_id=st.sampled_from([None, "op-1", "op-2"]),
    ),
    max_size=25,
)


@given(messages)
def test_invariants_hold_for_any_chat(chat):
    state, decisions = run(*chat)
    assert len(state.recent) <= POLICY.sustained.max_messages
    for message, decision in zip(chat, decisions, strict=True):
        if decision:
            assert message.author == "client"
            assert message in decision.evidence
            assert 0.0 <= decision.severity <= 1.0
    ids_that_decided = [message.message_id for message, decision in zip(chat, decisions, strict=True) if decision]
    assert len(ids_that_decided) == len(set(ids_that_decided))


@given(messages, messages, st.data())
def test_other_chats_and_the_bounds_of_polls_make_no_difference(mine, others, data):
    _, alone = run(*mine)
    states = EscalationStates(POLICY, max_chats=100)
    found, rest = [], list(others)
    for message in mine:
        for _ in range(data.draw(st.integers(0, 2))):
            if rest:
                states.judge(0, "other", rest.pop())
        found.append(states.judge(0, "mine", message)[1])
        if data.draw(st.booleans()):
            states.keep()
    assert found == alone


@given(st.lists(st.floats(0.5, 1.0), min_size=1, max_size=8))
def test_the_score_grows_with_every_further_sour_message(negativities):
    recent = tuple(judged(f"m{i}", negativity=each) for i, each in enumerate(negativities))
    assert sustained_score(POLICY.sustained, recent[1:]) <= sustained_score(POLICY.sustained, recent)


def test_a_poll_that_was_not_published_leaves_no_trace():
    states = EscalationStates(POLICY, max_chats=10)
    assert states.judge(0, "chat", judged("m1", negativity=0.9))[1] is not None
    states.discard()
    assert states.judge(0, "chat", judged("m1", negativity=0.9))[1] is not None


def test_memory_is_bounded_and_the_longest_silent_chats_go_first():
    states = EscalationStates(POLICY, max_chats=2)
    for chat in ("a", "b", "a", "c"):
        states.judge(0, chat, judged(f"m-{chat}", negativity=0.7))
        states.keep()
    assert len(states) == 2
    assert states.judge(0, "a", judged("m2", negativity=0.7))[1] is not None
    assert states.judge(0, "b", judged("m2", negativity=0.7))[1] is None


def test_revoked_partitions_are_forgotten():
    states = EscalationStates(POLICY, max_chats=10)
    states.judge(0, "a", judged("m1"))
    states.judge(1, "b", judged("m1"))
    states.keep()
    states.judge(0, "c", judged("m1"))
    states.forget_partitions({0})
    states.keep()
    assert len(states) == 1


def test_the_default_policy_is_valid_and_counts_only_what_another_operator_can_help_with():
    policy = parse_escalation_policy(DEFAULT_POLICY.read_text(encoding="utf-8"), source="default")
    assert set(policy.weights) == {"anger", "annoyance", "disappointment", "disapproval", "disgust"}


@pytest.mark.parametrize(
    ("broken", "told"),
    [
        ("cooldown_s = ", "not TOML"),
        (POLICY_TOML.replace("anger", "rage"), "rage"),
        (POLICY_TOML.replace("anger = 1.0", "anger = 0.0"), "above 0"),
        (POLICY_TOML.replace("min_score = 1.2", ""), "sustained.min_score"),
        (POLICY_TOML.replace("0.8", "1.8"), "severe_message.min_negativity"),
        (POLICY_TOML + "\ntypo = 1", "typo"),
    ],
)
def test_a_policy_that_can_not_be_used_is_refused_with_what_is_wrong(broken, told):
    with pytest.raises(ConfigurationError, match=told):
        parse_escalation_policy(broken, source="policy.toml")
