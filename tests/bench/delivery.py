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
from collections.abc import Sequence

from confluent_kafka import Consumer, TopicPartition

from tests.bench.drain import PARTITIONS, Load, filled_topics, measure_drain
from tests.bench.report import machine
from tests.bench.texts import split_length_texts
from tests.support.kafka_server import Kafka, NoKafka, kafka_for_tests
from tests.support.topic_reader import consumer_for
from tests.support.worker_process import ROOT, wait_until

KINDS = ("at_least_once", "exactly_once")
_WARM_UP = 10


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
    with filled_topics(kafka.bootstrap_servers, texts) as load:
        worker = load.stage.start_worker(RUGO_DELIVERY=kind, RUGO_CACHE_TEXTS="0")
        drain = measure_drain(load, [worker], messages=len(texts), deadline_s=600, count_done=Load.committed)
        assert load.committed() == len(texts), "not everything was committed in time"
    return round(drain.per_s, 1)


def _lone(kafka: Kafka, kind: str, texts: Sequence[str]) -> dict[str, float]:
    with filled_topics(kafka.bootstrap_servers, []) as load, consumer_for(kafka.bootstrap_servers) as reader:
        worker = load.stage.start_worker(RUGO_DELIVERY=kind, RUGO_CACHE_TEXTS="0")
        wait_until(lambda: "partitions ready" in worker.log, 60, what=worker.log)
        reader.assign([TopicPartition(load.stage.names.emotions, each, 0) for each in range(PARTITIONS)])
        taken_ms = [_ask(load, reader, text) for text in (*texts[:_WARM_UP], *texts)][_WARM_UP:]
        load.flush()
    return {
        "lone_p50_ms": round(statistics.median(taken_ms), 1),
        "lone_p95_ms": round(statistics.quantiles(taken_ms, n=20)[18], 1),
    }


def _ask(load: Load, reader: Consumer, text: str) -> float:
    time.sleep(random.uniform(0.1, 0.3))  # an idle worker, at no moment that anything is in step with
    asked_s = time.time()
    load.publish(text)
    answer = None
    while answer is None or answer.error():
        answer = reader.poll(30)
    return (time.time() - asked_s) * 1000


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
