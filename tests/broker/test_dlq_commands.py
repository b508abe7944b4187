"""`dlq list`, `show` and `redrive` on a real Apache Kafka."""

import json

import pytest
from typer.testing import CliRunner

from tests.support.stage import Stage
from worker.__main__ import cli
from worker.core.failures import DeadLetterError

pytestmark = pytest.mark.broker


@pytest.fixture
def partitions() -> int:
    return 2


def chat(**fields: object) -> bytes:
    return json.dumps({"message_id": "m", "chat_id": "c", "text": "тайна", **fields}, ensure_ascii=False).encode()


def dlq(stage: Stage, *arguments: str) -> str:
    """Run a `dlq` command and return what it prints; what it raises is raised."""
    outcome = CliRunner().invoke(cli, ["dlq", *arguments], env=stage.environment, catch_exceptions=False)
    assert outcome.exit_code == 0, outcome.output
    return outcome.output


def listed(stage: Stage, *arguments: str) -> list[dict]:
    return [json.loads(line) for line in dlq(stage, "list", "--json", *arguments).splitlines()]


def test_dead_letters_are_listed_shown_and_sent_back_once(stage, tmp_path):
    """Let a worker refuse six records; list and show them; send them back by position, corrected, by reason and all.

    No text is printed unasked, nothing is sent twice unless `--again` says so, and what was corrected is labelled.
    """
    good = chat(message_id="g").replace("тайна".encode(), "спасибо".encode())
    for partition, value, headers in [
        (0, b"{broken \xd1\x82", [("trace", b"\xff"), ("none", None)]),
        (0, chat(author="boss"), [("kept", b"1")]),
        (0, good, []),
        (1, chat(text=""), []),
        (1, chat(sent_at="yesterday"), []),
        (1, None, [("kept", b"2")]),
        (1, b"[]", []),
    ]:
        stage.publish(value, key=b"c", partition=partition, headers=headers)
    stage.flush()
    worker = stage.start_worker(RUGO_MAX_REJECTED_SHARE="1")
    stage.wait_until_outcomes(7)

    letters = listed(stage)
    assert sorted(each["reason"] for each in letters) == ["not_json", "schema", "schema", "schema", "schema", "tombstone"]
    assert not any(each["redriven"] for each in letters)
    at = {each["origin"].removeprefix(stage.names.input + "-"): each["position"] for each in letters}
    table = dlq(stage, "list", "--reason", "schema", "--since", "1h")
    assert "4 dead letters (schema 4)" in table
    assert len(listed(stage, "--limit", "2")) == 2
    assert listed(stage, "--since", "2100-01-01T00:00:00Z") == []
    shown = dlq(stage, "show", at["0-1"])
    assert "author: Input should be" in shown
    assert "kept: 1" in shown
    for printed in (table, shown, json.dumps(letters, ensure_ascii=False)):
        assert "тайна" not in printed
    assert "тайна" in dlq(stage, "show", at["0-1"], "--with-text")

    # The worker is stopped meanwhile, so that the topic holds only what is sent back.
    worker.terminate()
    assert worker.wait() == 0, worker.log
    before = stage.ends()
    assert "would send 6 dead letters" in dlq(stage, "redrive", "--all", "--dry-run")
    assert stage.ends() == before
    assert "sent 1 dead letter (not_json 1)" in dlq(stage, "redrive", at["0-0"])
    assert "passed over 1 dead letter " in dlq(stage, "redrive", at["0-0"])

    corrections = tmp_path / "corrected.jsonl"
    wanted = [each for each in listed(stage, "--with-text", "--pending") if each["position"] in (at["0-1"], at["1-0"])]
    for each in wanted:
        each["value"] |= {"author": "client", "text": "спасибо"}
    corrections.write_text("\n".join(json.dumps(each) for each in wanted), encoding="utf-8")
    assert json.loads(dlq(stage, "redrive", "--from-file", str(corrections), "--json"))["redriven"] == 2
    assert "sent 2 dead letters (schema 2)" in dlq(stage, "redrive", "--reason", "schema")
    assert [each["reason"] for each in listed(stage, "--pending")] == ["tombstone"]
    assert "sent 1 dead letter (tombstone 1)" in dlq(stage, "redrive", "--all")
    assert "sent 0 dead letters" in dlq(stage, "redrive", "--all")
    assert sum(stage.ends().values()) == sum(before.values()) + 6

    stage.start_worker(RUGO_MAX_REJECTED_SHARE="1")
    stage.wait_until_outcomes(13)
    again = [each for each in stage.outcomes() if each.answers[1] >= before[each.answers[0]]]
    assert sorted(each.kind for each in again) == ["dead letter"] * 4 + ["emotions"] * 2
    [broken] = [each for each in again if each.value == b"{broken \xd1\x82"]
    assert broken.headers[:3] == (("trace", b"\xff"), ("none", None), ("dlq.redriven_from", broken.headers[2][1]))
    assert broken.headers[2][1].decode() == f"{stage.names.dead_letter}-{at['0-0']}"
    assert broken.answers[0] == 0
    assert [name for name, _ in broken.headers].count("dlq.reason") == 1


def test_what_can_not_be_done_is_told_with_what_to_change(stage, tmp_path):
    """Ask for what is not there; nothing is sent, and each refusal names what would do."""
    corrections = tmp_path / "corrected.jsonl"
    corrections.write_text('{"position": "0-0", "value": {}}\n{"posit', encoding="utf-8")
    for arguments, told in [
        (["show", "0-17"], "no dead letter at 0-17.*holds none"),
        (["show", "seventeen"], "partition and offset"),
        (["redrive"], "--all, or --reason"),
        (["redrive", "--all", "0-1"], "one of the four"),
        (["redrive", "--reason", "typo"], "choose from tombstone"),
        (["redrive", "--from-file", str(corrections)], "line 2"),
        (["list", "--since", "soon"], "90m"),
    ]:
        with pytest.raises(DeadLetterError, match=told):
            dlq(stage, *arguments)
    assert "no dead letters" in dlq(stage, "list")
    assert sum(stage.ends().values()) == 0
