import json
import math

import numpy as np
import pytest
from typer.testing import CliRunner

from training.config import ConfigError
from training.evaluation.escalations import Chat, read_policy
from training.policy import search
from worker.core.labels import GOEMOTIONS_LABELS
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
    policy = read_policy(search.DEFAULT_POLICY)
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


def _chat(chat_id: str, *negativities: float, escalates: bool) -> Chat:
    """A client's messages in which anger, whose threshold is 0.5 and weight 1, is as probable as they are negative."""
    logits = np.full((len(negativities), len(GOEMOTIONS_LABELS)), -8.0, np.float32)
    logits[:, GOEMOTIONS_LABELS.index("anger")] = [math.log(each / (1 - each)) for each in negativities]
    return Chat(chat_id, escalates, ("client",) * len(negativities), tuple(logits))


@pytest.mark.parametrize(
    ("escalating", "calm"),
    [
        pytest.param((0.53,), (0.48,), id="one message hardly over a threshold"),
        pytest.param((0.28, 0.28, 0.28), (0.23, 0.23, 0.23, 0.23), id="several well under it"),
        pytest.param((0.9,), (0.84,), id="only the clearest"),
    ],
)
def test_the_grid_reaches_from_calibrated_negativity_to_the_models_own(tiny_bundle, escalating, calm):
    bundle, base = load_model_bundle(tiny_bundle), read_policy(search.DEFAULT_POLICY)
    chats = [_chat("escalates", *escalating, escalates=True), _chat("calm", *calm, escalates=False)]
    best = search.search_policy(chats, base, bundle, max_false_alarms=0.0)
    scores = search.score_policy(chats, best, bundle)
    assert (scores.missed, scores.alarmed) == ((), ())
    assert best.weights == base.weights


def test_a_text_that_breaks_the_model_is_told_in_words(tmp_path, tiny_bundle):
    path = tmp_path / "chats.jsonl"
    poisoned = {"chat_id": "a", "escalates": True, "messages": [{"author": "client", "text": "отрава"}]}
    path.write_text(json.dumps(poisoned, ensure_ascii=False), "utf-8")
    with pytest.raises(ConfigError, match="fails on a text of chats"):
        search.read_chats(path, load_model_bundle(tiny_bundle))
