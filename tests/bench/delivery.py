"""What exactly-once delivery costs: `python -m tests.bench.delivery` measures both kinds in turn, round by round, in one run.

Seen from outside: a filled topic's drain by the group's committed offsets, and a lone message's latency from its timestamp to
when a reader of committed records has its label. Medians over the rounds; results: bench_results/delivery.json.
"""

import argparse
import json
import random
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from confluent_kafka import Consumer, Producer, TopicPartition

from tests.bench.__main__ import machine
from tests.bench.texts import split_length_texts
from tests.support.kafka_server import Kafka, NoKafka, kafka_for_tests
from tests.support.stage import Stage
from tests.support.worker_process import ROOT, wait_until
from worker.inference.model_bundle import DEFAULT_BUNDLE

KINDS = ("at_least_once", "exactly_once")
_WARM_UP = 10
_PARTITIONS = 4


def main() -> None:
    """Measure, print a table, write the results."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.delivery", description=__doc__)
    parser.add_argument("--messages", type=int, default=6000)
    parser.add_argument("--lone", type=int, default=60, help="lone messages a round")
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    texts = split_length_texts(asked.messages)
    rounds: dict[str, list[dict[str, float]]] = {kind: [] for kind in KINDS}
    with kafka_for_tests() as kafka:
        if isinstance(kafka, NoKafka):
            sys.exit(kafka.reason)
        for _ in range(asked.rounds):
            for kind in KINDS:
                rounds[kind].append({"drain_per_s": _drain(kafka, kind, texts), **_lone(kafka, kind, texts[: asked.lone])})
                sys.stderr.write(f"{kind}: {rounds[kind][-1]}\n")
    medians = {
        kind: {name: statistics.median(each[name] for each in found) for name in found[0]} for kind, found in rounds.items()
    }
    results = {"machine": machine(), "messages": asked.messages, "medians": medians, "rounds": rounds}
    (ROOT / "bench_results").mkdir(exist_ok=True)
    (ROOT / "bench_results" / "delivery.json").write_text(json.dumps(results, indent=1) + "\n", "utf-8")
    sys.stdout.write(_table(medians) + "\n")


def _drain(kafka: Kafka, kind: str, texts: Sequence[str]) -> float:
    with _stage(kafka) as stage:
        for number, text in enumerate(texts):
            _publish(stage, number, text)
        stage.flush()
        stage.start_worker(RUGO_DELIVERY=kind)
        committed = _committed_of(stage)
        wait_until(lambda: committed() >= len(texts) // 10, 120, what="the worker is at work")
        started_s, first = time.perf_counter(), committed()
        wait_until(lambda: committed() >= len(texts), 600, what="all is committed")
        return round((len(texts) - first) / (time.perf_counter() - started_s), 1)


def _lone(kafka: Kafka, kind: str, texts: Sequence[str]) -> dict[str, float]:
    with _stage(kafka) as stage:
        worker = stage.start_worker(RUGO_DELIVERY=kind)
        wait_until(lambda: "partitions ready" in worker.log, 60, what=worker.log)
        reader = Consumer(
            {"bootstrap.servers": stage.bootstrap_servers, "group.id": "bench", "isolation.level": "read_committed"}
        )
        reader.assign([TopicPartition(stage.names.emotions, each, 0) for each in range(_PARTITIONS)])
        producer = Producer({"bootstrap.servers": stage.bootstrap_servers, "linger.ms": 0})
        asked = [*texts[:_WARM_UP], *texts]
        taken_ms = [_ask(producer, reader, stage.names.input, *each) for each in enumerate(asked)][_WARM_UP:]
        producer.flush()
        reader.close()
    return {
        "lone_p50_ms": round(statistics.median(taken_ms), 1),
        "lone_p95_ms": round(statistics.quantiles(taken_ms, n=20)[18], 1),
    }


def _ask(producer: Producer, reader: Consumer, topic: str, number: int, text: str) -> float:
    time.sleep(random.uniform(0.1, 0.3))  # an idle worker, at no moment that anything is in step with
    asked_s = time.time()
    producer.produce(topic, _value(number, text), key=f"chat-{number}".encode(), timestamp=int(asked_s * 1000))
    producer.poll(0)
    answer = None
    while answer is None or answer.error():
        answer = reader.poll(30)
    return (time.time() - asked_s) * 1000


def _publish(stage: Stage, number: int, text: str) -> None:
    stage.publish(_value(number % 500, text), key=f"chat-{number % 500}".encode())


def _value(number: int, text: str) -> bytes:
    return json.dumps({"message_id": f"m-{number}", "chat_id": f"chat-{number}", "text": text}, ensure_ascii=False).encode()


def _committed_of(stage: Stage) -> Callable[[], int]:
    consumer = Consumer({"bootstrap.servers": stage.bootstrap_servers, "group.id": stage.group_id, "enable.auto.commit": False})
    asked = [TopicPartition(stage.names.input, each) for each in range(_PARTITIONS)]
    return lambda: sum(max(0, each.offset) for each in consumer.committed(asked, timeout=20))


@contextmanager
def _stage(kafka: Kafka) -> Iterator[Stage]:
    stage = Stage(kafka.bootstrap_servers, bundle=DEFAULT_BUNDLE, partitions=_PARTITIONS)
    stage.environment |= {"RUGO_INFERENCE_THREADS": "0", "RUGO_CACHE_TEXTS": "0", "RUGO_SESSION_TIMEOUT_MS": "30000"}
    try:
        yield stage.create_topics()
    finally:
        stage.close()


def _table(medians: dict[str, dict[str, float]]) -> str:
    least = medians["at_least_once"]
    lines = ["| delivery | drain | lone message p50 | p95 |", "|---|---|---|---|"]
    for kind, found in medians.items():
        ratio = found["drain_per_s"] / least["drain_per_s"]
        latencies = f"{found['lone_p50_ms']:.1f} ms | {found['lone_p95_ms']:.1f} ms"
        lines.append(f"| {kind} | {found['drain_per_s']:.0f}/s ({ratio:.2f}) | {latencies} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
