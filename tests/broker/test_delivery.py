"""Delivery on a real Apache Kafka: nothing lost, order kept, bad input harmless, whatever happens to the workers."""

import json
import os
import subprocess
import sys
import time

import pytest

from tests.support.stage import Stage, check_ledger
from tests.support.worker_process import ROOT

pytestmark = pytest.mark.broker


def test_every_input_gets_an_outcome_and_a_chat_keeps_its_order(stage):
    """Publish 600 messages of 20 chats; one worker labels them all, once, in order, and stops cleanly with all committed."""
    stage.publish_chats(600)
    stage.flush()
    worker = stage.start_worker()
    stage.wait_until_all_answered()
    outcomes = check_ledger(stage)
    assert len(outcomes) == 600
    assert all(each.key == each.value["chat_id"].encode() for each in outcomes)
    assert all(each.value["emotions"][0]["label"] == "gratitude" for each in outcomes)
    worker.terminate()
    assert worker.wait() == 0, worker.log
    assert stage.committed() == stage.ends()


ODD_RECORDS = {
    "null header": (b'{"message_id": "o1", "chat_id": "odd", "text": "\xd1\x80\xd0\xb0\xd0\xb4\xd0\xb0"}', [("h", None)], None),
    "header that is not UTF-8": (b'{"message_id": "o2", "chat_id": "odd", "text": "ok"}', [("h", b"\xff\xfe")], None),
    "steering headers": (
        b'{"message_id": "o3", "chat_id": "odd", "text": "ok"}',
        [("reply_to", b"x"), ("content-type", b"?")],
        None,
    ),
    "tombstone": (None, [("h", b"kept")], "tombstone"),
    "broken JSON": (b'{"message_id": "o4", "chat', [("h", None), ("h", b"\xff")], "not_json"),
    "not UTF-8": (b"\xff\xfe\xfd", [], "not_json"),
    "schema error": (b'{"chat_id": "odd"}', [], "schema"),
    "empty text": (b'{"message_id": "o5", "chat_id": "odd", "text": "   "}', [], "schema"),
    "1 MB text": (json.dumps({"message_id": "o6", "chat_id": "odd", "text": "x" * 1_000_000}).encode(), [("h", b"")], "schema"),
    "poison": ('{"message_id": "o7", "chat_id": "odd", "text": "отрава"}'.encode(), [], "poison"),
}


@pytest.mark.parametrize("key", [b"odd", None], ids=["with key", "without key"])
def test_odd_records_in_the_middle_of_a_poll_lose_nothing_and_spoil_no_neighbour(stage, key):
    """Put each odd record between good ones in one partition: the good are labelled, the unreadable come out byte for byte."""
    for number, (value, headers, _) in enumerate(ODD_RECORDS.values()):
        good = json.dumps({"message_id": f"g{number}", "chat_id": "good", "text": "спасибо"}, ensure_ascii=False).encode()
        stage.publish(good, key=b"good", partition=0)
        stage.publish(value, key=key, headers=headers, partition=0)
    stage.flush()
    worker = stage.start_worker(RUGO_LOG_LEVEL="DEBUG")
    stage.wait_until_all_answered()
    assert "отрава" not in worker.log
    assert "спасибо" not in worker.log
    found = {each.answers[1]: each for each in check_ledger(stage)}
    for number, (value, headers, reason) in enumerate(ODD_RECORDS.values()):
        assert found[2 * number].value["emotions"][0]["label"] == "gratitude"
        outcome = found[2 * number + 1]
        if reason is None:
            assert outcome.kind == "emotions"
            continue
        assert outcome.kind == "dead letter"
        assert (outcome.value, outcome.key, list(outcome.headers[: len(headers)])) == (value, key, headers)
        assert dict(outcome.headers)["dlq.reason"] == reason.encode()


def test_kill_9_in_mid_batch_loses_nothing_and_repeats_carry_the_same_ids(stage):
    """Kill a worker with SIGKILL while it publishes, three times over; the last one finishes; check the ledger."""
    stage.publish_chats(8000)
    stage.flush()
    for round_ in range(3):
        worker = stage.start_worker(RUGO_MAX_POLL_RECORDS="100")
        stage.wait_until_outcomes(stage.count_outcomes() + 200)
        worker.kill()
        assert stage.uncommitted() > 0, f"the worker of round {round_} was through before it was killed"
    stage.start_worker()
    stage.wait_until_all_answered()
    check_ledger(stage)


def test_two_workers_joining_and_leaving_lose_nothing(stage):
    """While messages keep coming, a second worker joins, the first leaves, a third joins, the second leaves."""
    workers = []
    for number in range(3):
        workers.append(stage.start_worker())
        workers[-1].wait_until_assigned()
        stage.publish_chats(400, first=number * 800)
        if number:
            workers[number - 1].terminate()
            assert workers[number - 1].wait() == 0, workers[number - 1].log
        stage.publish_chats(400, first=number * 800 + 400)
    stage.flush()
    stage.wait_until_all_answered()
    check_ledger(stage)


def test_sigterm_in_mid_batch_commits_what_was_published_and_exits_in_seconds(stage):
    """Stop a worker that is in the middle of a backlog: exit code 0, nothing published that is not committed."""
    stage.publish_chats(20_000)
    stage.flush()
    worker = stage.start_worker(RUGO_MAX_POLL_RECORDS="50")
    stage.wait_until_outcomes(200)
    worker.terminate()
    started_s = time.monotonic()
    assert worker.wait(15) == 0, worker.log
    assert time.monotonic() - started_s < 10
    committed = stage.committed()
    assert 0 < sum(committed.values()) < 20_000
    assert {(partition, offset) for partition, end in committed.items() for offset in range(end)} == stage.answered()


def test_escalations_come_out_keyed_by_chat(stage):
    """A furious client's chat is escalated once; a calm one's is not."""
    for number, text in enumerate(["почему", "злюсь", "злюсь и мерзость"]):
        value = {"message_id": f"m{number}", "chat_id": "furious", "text": text, "operator_id": "op-1"}
        stage.publish(json.dumps(value, ensure_ascii=False).encode(), key=b"furious")
    stage.publish_chats(5, chats=1)
    stage.flush()
    stage.start_worker()
    stage.wait_until_all_answered()
    [escalation] = stage.escalations()
    assert (escalation["chat_id"], escalation["operator_id"], escalation["reason"]) == ("furious", "op-1", "severe_message")


@pytest.mark.parametrize("arguments", [["worker.app:app"], ["worker.app:create_app", "--factory"]])
def test_faststream_run_starts_the_same_worker(stage, arguments):
    """Start it as FastStream's users do, in both forms; it labels, and stops with exit code 0."""
    stage.publish_chats(10)
    stage.flush()
    worker = stage.start_worker(sys.executable, "-m", "faststream", "run", *arguments)
    stage.wait_until_all_answered()
    worker.terminate()
    assert worker.wait() == 0, worker.log


def test_missing_topics_are_named_and_topics_create_makes_them(kafka, tiny_bundle):
    """Without topics the worker exits with a sentence that names them; after `topics create` it runs."""
    stage = Stage(kafka.bootstrap_servers, bundle=tiny_bundle)
    try:
        worker = stage.start_worker()
        assert worker.wait(60) == 1
        assert all(name in worker.log for name in stage.names.all)
        assert "topics create" in worker.log
        command = [sys.executable, "-m", "worker", "topics", "create", "--partitions", "3"]
        environment = {**os.environ, **stage.environment}
        made = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=True, cwd=ROOT)
        assert made.stdout.count("created") == 4
        again = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=True, cwd=ROOT)
        assert again.stdout.count("exists") == 4
        stage.publish_chats(3)
        stage.flush()
        stage.start_worker()
        stage.wait_until_all_answered()
    finally:
        stage.close()
