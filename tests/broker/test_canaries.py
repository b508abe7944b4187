"""Words planted in every place of a record turn up where they belong and nowhere else; a record's headers steer nothing."""

import json
import re
import urllib.request
import uuid
from typing import Any

import pytest
from confluent_kafka.admin import AdminClient, NewTopic

from tests.support.stage import Stage
from tests.support.tiny_bundle import POISON_WORD
from tests.support.worker_process import WorkerProcess, wait_until

pytestmark = pytest.mark.broker

CANARY = "канарейка"
ROUTES = ("/live", "/ready", "/metrics", "/asyncapi.json")


def message(**fields: Any) -> bytes:
    return json.dumps({"message_id": "m", "chat_id": "c", **fields}, ensure_ascii=False).encode()


LABELLED = [
    message(text=f"{CANARY} спасибо"),
    message(text=f"злюсь {CANARY} злюсь раздражает мерзость", chat_id="angry"),
    message(text=f"{CANARY} " * 500),
    message(text="почему", channel=CANARY, unknown={CANARY: [CANARY]}, **{CANARY: CANARY}),
]
REJECTED = [
    f'{{"text": "{CANARY}'.encode(),
    CANARY.encode(),
    CANARY.encode("utf-16"),
    b"\xff" + CANARY.encode(),
    json.dumps([CANARY], ensure_ascii=False).encode(),
    message(text={CANARY: CANARY}),
    message(text=CANARY, author=CANARY),
    message(text=CANARY, sent_at=CANARY),
    message(text=CANARY * 1000),
    message(text=CANARY, message_id=CANARY * 20),
    message(text=f"{CANARY} {POISON_WORD}"),
    message(text=f"{CANARY}@").replace(b"@", rb"\ud800"),  # a lone surrogate, escaped
    None,
]
# What FastStream, and others, would obey.
STEERING = (
    ("correlation_id", CANARY.encode()),
    ("content-type", f"application/{CANARY}".encode()),
    (f"x-{CANARY}", CANARY.encode()),
    ("message_id", None),
    ("traceparent", CANARY.encode()),
)


def publish_canaries(stage: Stage, *, reply_to: str) -> int:
    values = [*LABELLED, *REJECTED]
    for value in values:
        stage.publish(value, key=CANARY.encode(), headers=[("reply_to", reply_to.encode()), *STEERING])
    stage.flush()
    return len(values)


def served(worker: WorkerProcess) -> str:
    answers = []
    for route in ROUTES:
        with urllib.request.urlopen(f"http://127.0.0.1:{worker.http_port}{route}", timeout=10) as response:
            answers.append(response.read().decode())
    return "\n".join(answers)


def test_a_planted_word_is_in_dead_letters_and_in_no_other_output(stage, kafka):
    """Plant a word in texts, keys, headers, names of fields and broken values, at DEBUG; look into all that comes out.

    Dead letters hold their originals byte for byte; no label, escalation, reason, log line, metric or page holds the word, and
    the topic that `reply_to` names stays empty.
    """
    elsewhere = f"elsewhere-{uuid.uuid4().hex[:8]}"
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap_servers})
    admin.create_topics([NewTopic(elsewhere, 1, 1)])[elsewhere].result(30)
    worker = stage.start_worker(RUGO_LOG_LEVEL="DEBUG", RUGO_MAX_REJECTED_SHARE="1")
    count = publish_canaries(stage, reply_to=elsewhere)
    wait_until(lambda: len(stage.answered()) == count, what=worker.log)
    pages = served(worker)
    worker.terminate()
    assert worker.wait() == 0, worker.log

    outcomes = stage.outcomes()
    letters = [each for each in outcomes if each.kind == "dead letter"]
    labels = [each for each in outcomes if each.kind == "emotions"]
    assert len(labels) == len(LABELLED)
    assert len(stage.escalations()) == 1
    assert sorted(each.value or b"" for each in letters) == sorted(each or b"" for each in REJECTED)
    assert {each.key for each in letters} == {CANARY.encode()}
    added = b" ".join(value or b"" for each in letters for name, value in each.headers if name.startswith("dlq."))
    published = repr([(each.value, each.key, each.headers) for each in labels]) + repr(stage.escalations())
    assert_without_canary(log=worker.log, pages=pages, reasons=added.decode(), published=published)
    assert stage.ends(elsewhere) == {0: 0}


def test_the_sentence_that_ends_a_worker_holds_no_planted_word(stage):
    """Send so many broken records that the worker gives up: why it does is told in numbers."""
    for number in range(1100):
        stage.publish(f"{CANARY} {number}".encode(), key=CANARY.encode())
    stage.flush()
    worker = stage.start_worker(RUGO_LOG_LEVEL="DEBUG", RUGO_MAX_REJECTED_SHARE="0.5")
    assert worker.wait(60) == 1, worker.log
    assert "records were rejected" in worker.log.strip().splitlines()[-1]
    assert_without_canary(log=worker.log)


def assert_without_canary(**outputs: str) -> None:
    forms = (CANARY, CANARY.upper(), ascii(CANARY)[1:-1], repr(CANARY.encode())[2:-1])
    for name, output in outputs.items():
        assert output, f"{name} is empty: nothing was looked at"
        once = re.sub(r"\\+", r"\\", output)  # what was escaped is escaped again by who writes JSON
        for form in forms:
            assert form not in once, f"{name} holds the planted word: {once[max(0, once.find(form) - 200) :][:400]}"
