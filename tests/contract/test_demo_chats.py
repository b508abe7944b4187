"""The demo's chats through the shipped model and default policy, held against a human's judgement of who should escalate."""

import pytest

from tests.support.worker_process import ROOT
from worker.core.decode import decode_record
from worker.core.escalation_states import EscalationStates
from worker.core.events import ScoredMessage, judged_message_of
from worker.core.records import Decoded, Record
from worker.inference.executor import InferenceExecutor
from worker.inference.model_bundle import DEFAULT_BUNDLE, load_model_bundle
from worker.inference.onnx_classifier import OnnxClassifier
from worker.settings import DEFAULT_POLICY, read_escalation_policy

pytestmark = pytest.mark.model

SHOULD_ESCALATE = frozenset(
    "food-102 bank-058 shop-219 tel-052 game-014 taxi-093 house-025 air-006 house-030 shop-247 edu-019 bank-096 food-117 "
    "air-013 tel-071 ins-025 tel-077".split()
)
# What the shipped model and policy reach; a change that falls below has made the demo worse.
LEAST_FOUND = 0.6
MOST_FALSE_ALARMS = 0.05


@pytest.fixture(scope="module")
def demo_messages() -> list[Decoded]:
    lines = (ROOT / "worker" / "demo_chats.jsonl").read_bytes().splitlines()
    records = [Record("chat.messages", 0, number, 0, None, line, ()) for number, line in enumerate(lines)]
    return [each for each in map(decode_record, records) if isinstance(each, Decoded)]


@pytest.fixture(scope="module")
def escalations(demo_messages) -> dict[str, list[str | None]]:
    """The operators under whom each chat was escalated."""
    bundle = load_model_bundle(DEFAULT_BUNDLE)
    policy = read_escalation_policy(DEFAULT_POLICY)
    scorer = bundle.scorer(policy.weights)
    inference = InferenceExecutor(OnnxClassifier(bundle), max_padded_tokens=2048, max_texts=64)
    classified = inference.classify_texts([each.message.text for each in demo_messages])
    states = EscalationStates(policy, max_chats=1000)
    found: dict[str, list[str | None]] = {}
    for decoded, each in zip(demo_messages, classified, strict=True):
        scored = ScoredMessage(decoded, scorer.score(each.logits), each.was_truncated)
        _, decision = states.judge(0, decoded.message.chat_id, judged_message_of(scored))
        if decision is not None:
            found.setdefault(decoded.message.chat_id, []).append(decision.operator_id)
    return found


def test_hostile_chats_are_escalated_and_calm_ones_are_not(demo_messages, escalations):
    chats = {each.message.chat_id for each in demo_messages}
    assert chats >= SHOULD_ESCALATE
    missed = sorted(SHOULD_ESCALATE - escalations.keys())
    alarmed = sorted(escalations.keys() - SHOULD_ESCALATE)
    assert 1 - len(missed) / len(SHOULD_ESCALATE) >= LEAST_FOUND, f"missed {missed}, alarmed {alarmed}"
    assert len(alarmed) / len(chats - SHOULD_ESCALATE) <= MOST_FALSE_ALARMS, f"alarmed {alarmed}"


def test_no_operator_is_escalated_twice(escalations):
    assert {chat: operators for chat, operators in escalations.items() if len(operators) > len(set(operators))} == {}


def test_the_file_shows_all_kinds_of_records(demo_messages):
    """Dozens of chats, some of each author, and malformed lines between them."""
    assert len({each.message.chat_id for each in demo_messages}) >= 40
    assert {each.message.author for each in demo_messages} == {"client", "operator", "bot", "system"}
    assert len((ROOT / "worker" / "demo_chats.jsonl").read_bytes().splitlines()) - len(demo_messages) >= 5
