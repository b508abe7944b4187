"""The benchmark works: four of its parts on few messages, a report that holds what was measured."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.bench.report import write_report
from tests.bench.texts import split_length_texts, zipf_texts
from tests.support.kafka_server import Kafka
from tests.support.worker_process import ROOT


def test_texts_are_as_long_as_the_test_split_s_and_all_different():
    texts = split_length_texts(3000)
    assert len(set(texts)) == len(texts)
    assert 68 < sum(map(len, texts)) / len(texts) < 78  # the split's mean is 72.8
    assert texts == split_length_texts(3000)


def test_the_zipf_mix_repeats_its_short_texts():
    texts = zipf_texts(3000)
    assert 0.4 < len(set(texts)) / len(texts) < 0.7
    commonest = max(set(texts), key=texts.count)
    assert texts.count(commonest) > 100
    assert len(commonest) <= 24


def test_a_report_without_kafka_holds_what_was_measured(tmp_path: Path):
    ceiling = {"per_s": 900.0, "one_thread_per_s": 500.0, "lone_text_ms": 2.0}
    table = write_report({"machine": {"cores": 2}, "mean_characters": 72.0, "ceiling": ceiling}, tmp_path)
    assert "| the same on one thread | 500 messages/s | 0.56 |" in table
    assert {each.name for each in tmp_path.iterdir()} == {"bench.json", "table.md", "rates.png"}


@pytest.mark.broker
def test_a_short_run_measures_ceiling_drain_latency_and_classify(kafka: Kafka, tmp_path: Path):
    """Run the command on few messages against the session's Kafka: every part that was asked for has a figure above zero."""
    parts = ("ceiling", "worker", "latency", "classify")
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench", "--smoke", "--results", str(tmp_path), "--only", *parts],
        env={**os.environ, "KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap_servers},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    results = json.loads((tmp_path / "bench.json").read_text("utf-8"))
    assert results["ceiling"]["per_s"] > 0
    assert results["worker"]["per_s"] > 0
    assert results["worker"]["rss_mb"] > 0
    assert results["latency"]["lone"]["p50_ms"] > 0
    assert results["classify"]["to_ceiling"] > 0
    assert "worker on Kafka" in done.stdout
