import json

import pytest
from typer.testing import CliRunner

from training.policy import search
from worker.core.escalation import parse_escalation_policy
from worker.inference.model_bundle import load_model_bundle

CHATS = [
    {"chat_id": "furious", "escalates": True, "messages": [{"author": "client", "text": "злюсь"}]},
    {"chat_id": "calm", "escalates": False, "messages": [{"author": "client", "text": "спасибо"}]},
    {"chat_id": "rude-operator", "escalates": False, "messages": [{"author": "operator", "text": "злюсь"}]},
    {"chat_id": "missed", "escalates": True, "messages": [{"author": "client", "text": "стол"}]},
    {"chat_id": "alarmed", "escalates": False, "messages": [{"author": "client", "text": "мерзость"}]},
]


@pytest.fixture
def chats_file(tmp_path):
    path = tmp_path / "chats.jsonl"
    path.write_text("\n".join(json.dumps(each, ensure_ascii=False) for each in CHATS), "utf-8")
    return path


def test_found_and_false_alarms_are_shares_of_their_own_kind_and_the_wrong_are_named(chats_file, tiny_bundle):
    bundle = load_model_bundle(tiny_bundle)
    policy = parse_escalation_policy(search.DEFAULT_POLICY.read_text("utf-8"), source="default")
    scores = search.score_policy(search.read_chats(chats_file, bundle), policy, bundle)
    assert scores.found == 0.5
    assert scores.false_alarms == pytest.approx(1 / 3)
    assert (scores.missed, scores.alarmed) == (("missed",), ("alarmed",))


def test_the_search_says_what_it_found_even_when_nothing_is_within_the_limit(chats_file, tiny_bundle):
    """No number on the grid tells disgust from anger, so every policy alarms on one of the three calm chats."""
    command = search.typer.Typer()
    command.command()(search.main)
    told = CliRunner().invoke(command, [str(chats_file), "--model", str(tiny_bundle), "--search"])
    assert told.exit_code == 0, told.output
    assert "5 chats, 2 should escalate" in told.output
    assert "best of the grid: found 50.0%, false alarms 33.3%" in told.output
