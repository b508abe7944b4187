"""`make bench`: how fast, how soon, at what cost, and against what a user would write instead; one run, one table.

`--smoke` does every part on few messages, to see that it works. `--only` takes parts by name, `--soak` adds minutes of load
with an eye on memory. Results: bench.json with the machine's description, table.md and rates.png, in bench_results/ unless
`--results` names another folder.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from tests.bench.ceiling import classifier_rate, lone_text_ms
from tests.bench.drain import Load, end, filled_topics, measure_drain, measure_latency, rss_of
from tests.bench.peer_runs import PEERS, start_peer
from tests.bench.report import machine, write_report
from tests.bench.texts import split_length_texts, texts_of_characters, zipf_texts
from tests.support.kafka_server import Kafka, NoKafka, kafka_for_tests
from tests.support.worker_process import ROOT
from worker.inference.cores import available_cores
from worker.inference.model_bundle import DEFAULT_BUNDLE, load_model_bundle

_DEADLINE_S = 600.0
_SHARES_OF_DRAIN = (0.1, 0.5, 0.8)
_CHARACTERS = (10, 20, 40, 80, 160, 320)


@dataclass(frozen=True, slots=True)
class Scale:
    """How much is measured."""

    messages: int
    latency_s: float
    lone: int
    lines: int
    repeats: int


FULL, SMOKE = Scale(20_000, 30.0, 60, 200_000, 3), Scale(3_000, 2.0, 5, 2_000, 1)


class Bench:
    """The parts, each of which adds what it found to `results`."""

    def __init__(self, kafka: Kafka | NoKafka, scale: Scale) -> None:
        self.kafka, self.scale = kafka, scale
        self.texts = split_length_texts(scale.messages)
        self.results: dict[str, Any] = {"machine": machine(), "bundle": load_model_bundle(DEFAULT_BUNDLE).manifest.version}
        self.results["messages"] = scale.messages
        self.results["mean_characters"] = round(sum(map(len, self.texts)) / len(self.texts), 1)

    def ceiling(self) -> None:
        """The classifier alone, on all cores and on one; one text alone; and by length."""
        repeats = self.scale.repeats
        self.results["ceiling"] = {
            "per_s": classifier_rate(self.texts, repeats=repeats),
            "one_thread_per_s": classifier_rate(self.texts, threads=1, repeats=repeats),
            "lone_text_ms": lone_text_ms(self.texts[:200]),
        }
        few = max(64, self.scale.messages // 20)
        self.results["by_characters"] = {
            each: classifier_rate(texts_of_characters(few, each), repeats=repeats) for each in _CHARACTERS
        }

    def worker(self) -> None:
        """The worker end to end, cache off: drain, cost, start-up."""
        with self.filled(self.texts) as load:
            started_s = time.perf_counter()
            worker = load.stage.start_worker(RUGO_CACHE_TEXTS="0")
            worker.wait_until_assigned(120)
            ready_s = time.perf_counter() - started_s
            drain = measure_drain(load, [worker], messages=len(self.texts), deadline_s=_DEADLINE_S)
        self.results["worker"] = {**drain.as_dict(), "ready_s": round(ready_s, 2)}

    def zipf(self) -> None:
        """A chat-like mix of repeats, with the cache and without it."""
        texts = zipf_texts(self.scale.messages)
        self.results["zipf"] = {"different_texts": len(set(texts)) / len(texts)}
        for name, setting in {"cache_off": {"RUGO_CACHE_TEXTS": "0"}, "cache_on": {}}.items():
            with self.filled(texts) as load:
                drain = measure_drain(load, [load.stage.start_worker(**setting)], messages=len(texts), deadline_s=_DEADLINE_S)
            self.results["zipf"][name] = drain.as_dict()

    def latency(self) -> None:
        """How long a message waits: alone on an idle worker, and at shares of the drain rate."""
        drain_per_s = self.results.get("worker", {}).get("per_s") or 500.0
        with self.filled([]) as load:
            load.stage.start_worker(RUGO_CACHE_TEXTS="0").wait_until_assigned()
            measure_latency(load, self.texts, per_s=20, seconds=2)
            self.results["latency"] = {
                "lone": measure_latency(load, self.texts, per_s=2, seconds=self.scale.lone / 2).as_dict(),
                **{
                    f"{share:.0%}": measure_latency(
                        load, self.texts, per_s=share * drain_per_s, seconds=self.scale.latency_s
                    ).as_dict()
                    for share in _SHARES_OF_DRAIN
                },
            }

    def scaling(self) -> None:
        """One worker and two, of one thread each, on one topic."""
        self.results["scaling"] = {}
        for count in (1, 2):
            with self.filled(self.texts) as load:
                one = {"RUGO_INFERENCE_THREADS": "1", "RUGO_CACHE_TEXTS": "0"}
                workers = [load.stage.start_worker(**one) for _ in range(count)]
                drain = measure_drain(load, workers, messages=len(self.texts), deadline_s=_DEADLINE_S)
            self.results["scaling"][f"{count} of one thread"] = drain.as_dict()

    def peers(self) -> None:
        """What a user would write instead."""
        self.results["peers"] = {}
        for peer in PEERS:
            texts = self.texts[: max(100, int(len(self.texts) * peer.share))]
            with self.filled(texts) as load:
                consumer = start_peer(peer, load.stage, threads=available_cores())
                try:
                    drain = measure_drain(load, [consumer], messages=int(len(texts) * 0.8), deadline_s=180)
                finally:
                    end(consumer)
            self.results["peers"][peer.name] = drain.as_dict()

    def classify(self) -> None:
        """`classify` on a long file, against the ceiling on the same lines."""
        lines = split_length_texts(self.scale.lines, seed=9)
        started_s = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-m", "worker", "classify", "--json"],
            input="\n".join(lines).encode(),
            stdout=subprocess.PIPE,
            cwd=ROOT,
            env={**os.environ, "RUGO_CACHE_TEXTS": "0"},
            check=True,
        )
        taken_s = time.perf_counter() - started_s
        assert done.stdout.count(b"\n") == len(lines)
        ceiling = classifier_rate(lines[: self.scale.messages], repeats=self.scale.repeats)
        self.results["classify"] = {
            "lines": len(lines),
            "per_s": len(lines) / taken_s,
            "to_ceiling": len(lines) / taken_s / ceiling,
        }

    def soak(self, minutes: float) -> None:
        """Half the drain rate for minutes on end: does memory grow?"""
        per_s = 0.5 * (self.results.get("worker", {}).get("per_s") or 500.0)
        with self.filled([]) as load:
            worker = load.stage.start_worker(RUGO_CACHE_TEXTS="0")
            worker.wait_until_assigned()
            measured = []
            for _ in tqdm(range(max(2, round(minutes * 2))), desc="soak", unit="half minute", file=sys.stderr):
                measure_latency(load, self.texts, per_s=per_s, seconds=30)
                measured.append(round(rss_of([worker]), 1))
        self.results["soak"] = {"minutes": minutes, "per_s": per_s, "rss_mb_every_half_minute": measured}

    def filled(self, texts: Sequence[str]) -> AbstractContextManager[Load]:
        """Return a context of topics of its own that hold the texts."""
        assert not isinstance(self.kafka, NoKafka)
        return filled_topics(self.kafka.bootstrap_servers, texts)


PARTS = ("ceiling", "worker", "latency", "zipf", "scaling", "peers", "classify")
_WITHOUT_KAFKA = {"ceiling", "classify"}


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="few messages, to see that everything works")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--messages", type=int, default=FULL.messages, help="of each drain; `classify` gets ten times as many")
    parser.add_argument("--latency-seconds", type=float, default=FULL.latency_s, help="of load at each share of the drain rate")
    parser.add_argument("--soak", type=float, default=0.0, metavar="MINUTES")
    parser.add_argument("--results", type=Path, default=ROOT / "bench_results", metavar="FOLDER", help="where they are written")
    asked = parser.parse_args()
    with kafka_for_tests() as kafka:
        full = replace(FULL, messages=asked.messages, lines=10 * asked.messages, latency_s=asked.latency_seconds)
        bench = Bench(kafka, SMOKE if asked.smoke else full)
        if isinstance(kafka, NoKafka):
            bench.results["skipped"] = kafka.reason
        parts = [
            each for each in PARTS if each in asked.only and not (isinstance(kafka, NoKafka) and each not in _WITHOUT_KAFKA)
        ]
        for part in tqdm(parts, desc="bench", unit="part", file=sys.stderr):
            getattr(bench, part)()
            sys.stderr.write(f"\n{part}: {json.dumps(bench.results.get(part), ensure_ascii=False)}\n")
        if asked.soak and not isinstance(kafka, NoKafka):
            bench.soak(asked.soak)
    sys.stdout.write(write_report(bench.results, asked.results) + "\n")


if __name__ == "__main__":
    main()
