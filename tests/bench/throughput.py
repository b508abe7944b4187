"""Measures how fast the shipped model labels, alone and in the worker, in one run: `make bench`.

(a) the classifier alone, in this process; (b) the worker draining a topic that was filled before it starts, on a real Apache
Kafka if one can be had. Same texts, same threads; no text is repeated within a poll. Results: bench_results/throughput.json.
"""

import json
import os
import platform
import time
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from tests.support.kafka_server import NoKafka, kafka_for_tests
from tests.support.worker_runs import ROOT, Stage, wait_until
from worker.inference.executor import InferenceExecutor
from worker.inference.model_bundle import DEFAULT_BUNDLE, load_model_bundle
from worker.inference.onnx_classifier import OnnxClassifier, available_cores

MESSAGES = 12_000
REPEATS = 3
POLL = 256


def main() -> None:
    """Measure, print a table, and write the results with the machine's description."""
    texts = _texts(MESSAGES)
    results: dict[str, Any] = {
        "machine": _machine(),
        "messages": MESSAGES,
        "mean_characters": sum(map(len, texts)) / len(texts),
    }
    results["classifier_per_s"] = max(_classifier_rate(texts) for _ in range(REPEATS))
    with kafka_for_tests() as kafka:
        if isinstance(kafka, NoKafka):
            results["worker_skipped"] = kafka.reason
        else:
            results["worker_per_s"] = _worker_rate(kafka.bootstrap_servers, texts)
            results["worker_to_classifier"] = results["worker_per_s"] / results["classifier_per_s"]
    _report(results)


def _texts(count: int) -> list[str]:
    lines = [
        json.loads(line)["text"]
        for path in sorted((ROOT / "training" / "corpus").glob("*.jsonl"))
        for line in path.read_text("utf-8").splitlines()
    ]
    return list(islice(cycle(lines), count))


def _classifier_rate(texts: list[str]) -> float:
    bundle = load_model_bundle(DEFAULT_BUNDLE)
    inference = InferenceExecutor(OnnxClassifier(bundle), max_padded_tokens=1024, max_texts=32)
    scorer = bundle.scorer({"anger": 1.0})
    inference.classify_texts(texts[:POLL])
    started_s = time.perf_counter()
    for first in range(0, len(texts), POLL):
        for classified in inference.classify_texts(texts[first : first + POLL]):
            scorer.score(classified.logits)  # type: ignore[union-attr]
    rate = len(texts) / (time.perf_counter() - started_s)
    inference.close()
    return rate


def _worker_rate(bootstrap_servers: str, texts: list[str]) -> float:
    stage = Stage(bootstrap_servers, bundle=DEFAULT_BUNDLE).create_topics()
    try:
        for number, text in enumerate(texts):
            chat = f"chat-{number % 500}"
            value = {"message_id": f"m-{number}", "chat_id": chat, "text": text}
            stage.publish(json.dumps(value, ensure_ascii=False).encode(), key=chat.encode())
        stage.flush()
        stage.start_worker(RUGO_INFERENCE_THREADS="0")
        wait_until(lambda: stage.count_outcomes() > len(texts) // 10, 120, what="the worker is at work")
        started_s, first = time.perf_counter(), stage.count_outcomes()
        wait_until(lambda: stage.count_outcomes() >= len(texts), 600, what="all are labelled")
        return (len(texts) - first) / (time.perf_counter() - started_s)
    finally:
        stage.close()


def _machine() -> dict[str, Any]:
    models = [line.split(":", 1)[1].strip() for line in _cpu_info() if line.startswith("model name")]
    return {
        "processor": models[0] if models else platform.processor(),
        "cores": available_cores(),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()}",
        "load_before": os.getloadavg()[0],
    }


def _cpu_info() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text("utf-8").splitlines() if path.exists() else []


def _report(results: dict[str, Any]) -> None:
    folder = ROOT / "bench_results"
    folder.mkdir(exist_ok=True)
    (folder / "throughput.json").write_text(json.dumps(results, ensure_ascii=False, indent=1) + "\n", "utf-8")
    print(f"| what | messages/s |\n|---|---|\n| classifier alone | {results['classifier_per_s']:.0f} |")  # noqa: T201
    if "worker_per_s" in results:
        ratio = results["worker_to_classifier"]
        print(f"| worker end to end on Apache Kafka | {results['worker_per_s']:.0f} ({ratio:.2f} of the classifier) |")  # noqa: T201
    else:
        print(f"\nworker not measured: {results['worker_skipped']}")  # noqa: T201


if __name__ == "__main__":
    main()
