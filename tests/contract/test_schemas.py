"""The committed JSON Schemas are what the models say, and no change goes against a release."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from tests.support.schema_compatibility import reading_problems, writing_problems
from tests.unit.test_events import NOW, builder, judged, scored
from worker.contracts.schemas import READ, WRITTEN, json_schemas
from worker.core.escalation import ChatFacts, EscalationDecision

SCHEMAS = Path(__file__).parents[2] / "docs" / "schemas"
RELEASES = sorted(path for path in (SCHEMAS / "released").iterdir() if path.is_dir())
Change = Callable[[dict[str, Any]], Any]


def read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", json_schemas())
def test_a_committed_schema_is_what_its_model_says(name: str) -> None:
    assert read(SCHEMAS / f"{name}.json") == json_schemas()[name], "run `python -m worker schemas docs/schemas`"


@pytest.mark.parametrize("name", json_schemas())
def test_a_schema_is_valid_itself(name: str) -> None:
    jsonschema.Draft202012Validator.check_schema(json_schemas()[name])


def test_there_is_a_release_to_be_compatible_with() -> None:
    assert RELEASES


@pytest.mark.parametrize("release", RELEASES, ids=lambda path: path.name)
@pytest.mark.parametrize("name", READ)
def test_what_producers_of_a_release_send_is_still_read(release: Path, name: str) -> None:
    assert reading_problems(read(release / f"{name}.json"), json_schemas()[name]) == []


@pytest.mark.parametrize("release", RELEASES, ids=lambda path: path.name)
@pytest.mark.parametrize("name", WRITTEN)
def test_what_consumers_of_a_release_rely_on_is_still_written(release: Path, name: str) -> None:
    assert writing_problems(read(release / f"{name}.json"), json_schemas()[name]) == []


def changed(name: str, change: Change) -> dict[str, Any]:
    schema = copy.deepcopy(json_schemas()[name])
    change(schema)
    return schema


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda s: s["required"].append("channel"), "channel may be absent"),
        (lambda s: s["properties"]["text"].update(maxLength=4096), "beyond maxLength"),
        (lambda s: s["properties"]["message_id"].update(minLength=2), "below minLength"),
        (lambda s: s["properties"]["author"]["enum"].remove("bot"), "values besides"),
        (lambda s: s["properties"].pop("channel"), "channel has vanished"),
        (lambda s: s["properties"]["text"].update(type="integer"), "string where integer"),
        (lambda s: s["properties"]["sent_at"]["anyOf"].pop(), "null where string"),
        (lambda s: s["properties"]["channel"]["anyOf"][0].update(pattern="^web$"), "pattern"),
    ],
)
def test_a_change_that_refuses_older_messages_is_noticed(change: Change, problem: str) -> None:
    problems = reading_problems(json_schemas()["chat_message"], changed("chat_message", change))
    assert any(problem in each for each in problems), problems


@pytest.mark.parametrize(
    "change",
    [
        lambda s: s["properties"].update(language={"type": "string"}),
        lambda s: s["properties"]["text"].update(maxLength=10_000),
        lambda s: s["properties"]["author"]["enum"].append("supervisor"),
        lambda s: s["required"].remove("text"),
    ],
)
def test_a_change_that_takes_more_than_before_is_fine(change: Change) -> None:
    assert reading_problems(json_schemas()["chat_message"], changed("chat_message", change)) == []


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda s: s["properties"].pop("tone"), "tone has vanished"),
        (lambda s: s["$defs"]["Source"]["properties"].pop("offset"), "offset has vanished"),
        (lambda s: s["required"].remove("event_id"), "event_id may be absent"),
        (lambda s: s["properties"]["tone"]["enum"].append("sarcastic"), "values besides"),
        (lambda s: s["properties"]["negativity"].update(maximum=100), "beyond maximum"),
        (lambda s: s["$defs"]["Emotion"]["properties"]["label"].update(type="integer"), "integer where string"),
        (lambda s: s["properties"]["truncated"].update(anyOf=[{"type": "boolean"}, {"type": "null"}]), "null where boolean"),
    ],
)
def test_a_change_that_breaks_consumers_is_noticed(change: Change, problem: str) -> None:
    problems = writing_problems(json_schemas()["emotion_event"], changed("emotion_event", change))
    assert any(problem in each for each in problems), problems


def test_a_new_field_breaks_no_consumer() -> None:
    def add(schema: dict[str, Any]) -> None:
        schema["properties"]["language"] = {"type": "string"}
        schema["required"].append("language")

    assert writing_problems(json_schemas()["emotion_event"], changed("emotion_event", add)) == []


@pytest.mark.parametrize("asked", [False, True], ids=["usual", "with probabilities"])
def test_what_the_worker_writes_obeys_its_schema(asked: bool) -> None:
    events = builder(publishes_probabilities=asked)
    decision = EscalationDecision(None, "sustained", 0.6, (judged("m0", negativity=0.7), judged("m1", negativity=0.8)))
    written = {
        "emotion_event": events.emotion_record(scored(), facts=ChatFacts(), classified_at=NOW),
        "escalation_event": events.escalation_record(scored(), decision, raised_at=NOW),
    }
    for name, outgoing in written.items():
        jsonschema.Draft202012Validator(json_schemas()[name]).validate(json.loads(outgoing.value))
