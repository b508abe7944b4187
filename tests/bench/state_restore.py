"""Measures how fast a worker remembers: `python -m tests.bench.state_restore [labels]`.

Fills an emotions topic of a real Apache Kafka with labels of made-up chats, judged as the worker judges, and reads their
escalation states back as a worker does to which the partitions are assigned. Results: bench_results/state_restore.json.
"""

import asyncio
import json
import random
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime

from confluent_kafka import Producer

from tests.support.kafka_server import NoKafka, kafka_for_tests
from tests.support.stage import Stage
from tests.support.worker_process import ROOT
from worker.contracts.outbound import ModelInfo
from worker.core.decode import decode_record
from worker.core.escalation_states import EscalationStates
from worker.core.events import EventBuilder, ScoredMessage, judged_message_of
from worker.core.labels import GOEMOTIONS_LABELS
from worker.core.records import Decoded, OutgoingRecord, Record, TopicNames, TopicPartition
from worker.core.scoring import LabelProbability, Score
from worker.inference.model_bundle import DEFAULT_BUNDLE
from worker.kafka.connection import BrokerConnection
from worker.kafka.state_reader import StateReader
from worker.settings import DEFAULT_POLICY, read_escalation_policy

PARTITIONS = 3
MESSAGES_A_CHAT = 16
WINDOW_S = 7200
REPEATS = 3


def main() -> None:
    """Measure, print and write the results."""
    labels = int(sys.argv[1]) if len(sys.argv) > 1 else 300_000
    with kafka_for_tests() as kafka:
        if isinstance(kafka, NoKafka):
            sys.exit(kafka.reason)
        stage = Stage(kafka.bootstrap_servers, bundle=DEFAULT_BUNDLE, partitions=PARTITIONS).create_topics()
        value_bytes = _publish(stage, labels)
        results: dict[str, float] = {
            "labels": labels,
            "mean_value_bytes": round(value_bytes / labels),
            "chats": labels // MESSAGES_A_CHAT,
        }
        runs = [asyncio.run(_restore(stage, labels)) for _ in range(REPEATS)]
    # On a busy machine the processor's time tells what a free core would take.
    results["seconds"], results["cpu_seconds"] = min(each[0] for each in runs), min(each[1] for each in runs)
    results["labels_per_s"] = round(labels / results["seconds"])
    results["labels_per_cpu_s"] = round(labels / results["cpu_seconds"])
    sys.stdout.write(json.dumps(results, indent=2) + "\n")
    path = ROOT / "bench_results" / "state_restore.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(results, indent=2), encoding="utf-8")


class _Group:
    """Stands for the group's consumer: every partition is processed to its end."""

    def __init__(self, next_offset: int) -> None:
        self._next_offset = next_offset

    async def position(self, _partition: object) -> int:
        return self._next_offset


async def _restore(stage: Stage, labels: int) -> tuple[float, float]:
    states = EscalationStates(read_escalation_policy(DEFAULT_POLICY), max_chats=labels)
    reader = StateReader(
        BrokerConnection(stage.bootstrap_servers),
        stage.names,
        states=states,
        consumer=lambda: _Group(labels),
        deadline_s=60.0,
        max_disorder=4096,
        now=lambda: datetime.now(UTC),
    )
    started_s, started_cpu_s = time.perf_counter(), time.process_time()
    await reader.restore([TopicPartition(stage.names.input, each) for each in range(PARTITIONS)])
    taken = time.perf_counter() - started_s, time.process_time() - started_cpu_s
    assert len(states) == labels // MESSAGES_A_CHAT, len(states)
    return taken


def _publish(stage: Stage, count: int) -> int:
    producer = Producer(
        {"bootstrap.servers": stage.bootstrap_servers, "linger.ms": 20, "queue.buffering.max.messages": 1_000_000}
    )
    value_bytes = 0
    for label in _labels(stage.names, count):
        value_bytes += len(label.value or b"")
        producer.produce(label.topic, label.value, label.key, label.partition, headers=list(label.headers))
        producer.poll(0)
    assert producer.flush(60) == 0
    return value_bytes


def _labels(names: TopicNames, count: int) -> Iterator[OutgoingRecord]:
    """Yield labels of chats that begin one after the other and last as long as the policy's window has room for."""
    policy = read_escalation_policy(DEFAULT_POLICY)
    states = EscalationStates(policy, max_chats=count)
    model = ModelInfo(name="rugo-tiny2", version="1.1.0", digest="sha256:" + "0" * 64)
    events = EventBuilder(names, model=model, worker_version="0", label_order=GOEMOTIONS_LABELS)
    dice, started_s, chats = random.Random(1), time.time() - WINDOW_S, count // MESSAGES_A_CHAT
    for number in range(count):
        scored = _scored(names.input, number, chat=number % chats, at_s=started_s + number * WINDOW_S / count, dice=dice)
        record = scored.decoded.record
        state, _ = states.judge(record.partition, scored.decoded.message.chat_id, judged_message_of(scored))
        states.keep()
        yield events.emotion_record(scored, facts=state.facts, classified_at=datetime.now(UTC))


def _scored(topic: str, number: int, *, chat: int, at_s: float, dice: random.Random) -> ScoredMessage:
    author = "client" if dice.random() < 0.5 else "operator"
    message = {
        "message_id": f"m-{number:012d}",
        "chat_id": f"chat-{chat:010d}",
        "text": "текст",
        "author": author,
        "operator_id": f"operator-{chat % 50}" if author == "operator" else None,
        "sent_at": datetime.fromtimestamp(at_s, tz=UTC).isoformat(),
    }
    value = json.dumps(message, ensure_ascii=False).encode()
    decoded = decode_record(Record(topic, chat % PARTITIONS, number, int(at_s * 1000), b"", value, ()))
    assert isinstance(decoded, Decoded)
    heard = [LabelProbability(label, round(dice.uniform(0.4, 1.0), 4), 0.3) for label in dice.sample(GOEMOTIONS_LABELS, 2)]
    return ScoredMessage(decoded, Score(tuple(heard), round(dice.random() ** 3, 4), ()), was_truncated=False)


if __name__ == "__main__":
    main()
