"""What the escalation policy remembers, on a real Apache Kafka: it survives a kill and moves with its partition."""

import json
from pathlib import Path

import pytest

from tests.support.stage import Stage
from worker.settings import DEFAULT_POLICY

pytestmark = pytest.mark.broker

SOUR, FURIOUS = "раздражает", "злюсь"


@pytest.fixture
def stage(stage: Stage, tmp_path: Path) -> Stage:
    """A stage whose policy escalates on the third sour message of a chat, and on the first furious one."""
    policy = DEFAULT_POLICY.read_text("utf-8").replace("min_score = 1.1", "min_score = 2.0")
    policy = policy.replace("min_negativity = 0.7", "min_negativity = 0.95")
    (tmp_path / "policy.toml").write_text(policy, "utf-8")
    stage.environment["RUGO_ESCALATION_POLICY"] = str(tmp_path / "policy.toml")
    return stage


def say(stage: Stage, chat: str, message_id: str, text: str) -> None:
    value = {"message_id": message_id, "chat_id": chat, "text": text, "operator_id": "op-1"}
    stage.publish(json.dumps(value, ensure_ascii=False).encode(), key=chat.encode())
    stage.flush()


def evidence(stage: Stage) -> dict[str, list[list[str]]]:
    """The ids of the messages that led to each escalation, by chat."""
    found: dict[str, list[list[str]]] = {}
    for each in stage.escalations():
        found.setdefault(each["chat_id"], []).append([message["message_id"] for message in each["evidence"]])
    return found


def test_a_killed_worker_goes_on_where_it_was(stage):
    """Kill -9 a worker that has committed everything, and start another.

    A chat soured by two messages before the kill escalates with the third after it; one that was escalated is still in its
    cooldown; a label that a crash had published three times counts once.
    """
    say(stage, "souring", "m1", SOUR)
    say(stage, "souring", "m2", SOUR)
    say(stage, "escalated", "m1", FURIOUS)
    say(stage, "repeated", "m1", SOUR)
    worker = stage.start_worker()
    stage.wait_until_all_committed()
    worker.kill()
    assert evidence(stage) == {"escalated": [["m1"]]}
    stage.repeat_labels("repeated", times=2)
    for chat in ("souring", "escalated", "repeated"):
        say(stage, chat, "m3", FURIOUS if chat == "escalated" else SOUR)
    stage.start_worker()
    stage.wait_until_all_committed()
    assert evidence(stage) == {"escalated": [["m1"]], "souring": [["m1", "m2", "m3"]]}


def test_what_is_remembered_moves_with_its_partition(stage):
    """Twelve chats sour under one worker, a second joins, and the third messages come: every chat escalates with all three."""
    chats = [f"chat-{number}" for number in range(12)]
    for message_id in ("m1", "m2"):
        for chat in chats:
            say(stage, chat, message_id, SOUR)
    stage.start_worker()
    stage.wait_until_all_committed()
    joined = stage.start_worker()
    joined.wait_until_assigned()
    for chat in chats:
        say(stage, chat, "m3", SOUR)
    stage.wait_until_all_committed()
    assert evidence(stage) == {chat: [["m1", "m2", "m3"]] for chat in chats}
