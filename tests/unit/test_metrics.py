import re
from pathlib import Path

import pytest
from aiokafka import TopicPartition as KafkaTopicPartition
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from worker.core.records import TopicPartition
from worker.inference.executor import InferenceExecutor
from worker.inference.model_bundle import load_model_bundle
from worker.inference.onnx_classifier import OnnxClassifier
from worker.kafka.lag_watch import consumer_lag
from worker.telemetry.metrics import Metrics, metrics_page

PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"


def samples(metrics):
    families = text_string_to_metric_families(generate_latest(metrics.registry).decode())
    return {(each.name, *sorted(each.labels.values())): each.value for family in families for each in family.samples}


def test_the_page_in_docs_is_the_printed_one():
    assert PAGE.read_text("utf-8") == metrics_page() + "\n", "write it anew: python -m worker metrics > docs/metrics.md"


def test_names_keep_prometheus_conventions():
    for each in Metrics().declared:
        assert re.fullmatch(r"rugo_[a-z]+(_[a-z]+)*", each.name)
        assert each.name.endswith("_total") == (each.kind == "counter")
        assert each.name.endswith("_info") == (each.kind == "info")
        assert not re.search(r"_(ms|milliseconds|minutes|kb|mb|percent)\b", each.name), "base units only"
        assert not each.what.endswith(".")


def test_no_label_can_take_as_many_values_as_there_are_chats():
    assert {label for each in Metrics().declared for label in each.labels} <= {
        "topic", "partition", "reason", "emotion", "tone",
    }  # fmt: skip


def test_what_can_be_counted_is_there_from_the_start_at_zero():
    found = samples(Metrics())
    for series in [
        ("rugo_dead_letters_total", "not_json"),
        ("rugo_escalations_total", "sustained"),
        ("rugo_tones_total", "mixed"),
        ("rugo_labels_total", "grief"),
    ]:
        assert found[series] == 0


def test_the_process_s_own_metrics_are_served_too():
    assert samples(Metrics())[("process_resident_memory_bytes",)] > 1e6


def test_drift_is_absent_until_there_is_a_baseline():
    metrics = Metrics()
    assert ("rugo_drift_psi",) not in samples(metrics)
    metrics.show_drift()
    assert ("rugo_drift_psi",) in samples(metrics)


def test_lag_is_shown_for_the_partitions_that_are_ours_now():
    metrics = Metrics()
    metrics.set_lag({TopicPartition("chats", 0): 5, TopicPartition("chats", 1): 7})
    metrics.set_lag({TopicPartition("chats", 1): 3, TopicPartition("chats", 2): 0})
    lags = {key[1:]: value for key, value in samples(metrics).items() if key[0] == "rugo_consumer_lag_records"}
    assert lags == {("1", "chats"): 3, ("2", "chats"): 0}


def test_micro_batches_and_their_padding_are_counted(tiny_bundle):
    """Three texts of 3, 3 and 4 tokens under a budget of 8 padded tokens: the longest alone with another, then the last."""
    metrics = Metrics()
    classifier = OnnxClassifier(load_model_bundle(tiny_bundle), threads=1)
    executor = InferenceExecutor(classifier, max_padded_tokens=8, max_texts=8, watch=metrics)
    executor.classify_texts(["спасибо", "рада", "почему зря"])
    executor.close()
    found = samples(metrics)
    assert found[("rugo_micro_batch_texts_count",)] == 2
    assert found[("rugo_micro_batch_texts_sum",)] == 3
    assert found[("rugo_tokens_total",)] == 10
    assert found[("rugo_padded_tokens_total",)] == 11
    assert found[("rugo_tokenize_seconds_count",)] == 1


class Consumer:
    """Has read nothing itself: what it answers stands for the broker's answers."""

    def __init__(self, committed, *, ends, beginnings):
        self._committed, self._ends, self._beginnings = committed, ends, beginnings

    def assignment(self):
        return frozenset(KafkaTopicPartition("chats", each) for each in self._ends)

    async def committed(self, partition):
        return self._committed[partition.partition]

    async def end_offsets(self, partitions):
        return {each: self._ends[each.partition] for each in partitions}

    async def beginning_offsets(self, partitions):
        return {each: self._beginnings[each.partition] for each in partitions}


async def test_lag_is_what_is_not_committed_and_all_that_is_kept_before_a_first_commit():
    consumer = Consumer({0: 90, 1: None, 2: 7}, ends={0: 100, 1: 50, 2: 7}, beginnings={1: 20})
    assert await consumer_lag(consumer) == {
        TopicPartition("chats", 0): 10,
        TopicPartition("chats", 1): 30,
        TopicPartition("chats", 2): 0,
    }


@pytest.mark.parametrize("consumer", [None, Consumer({}, ends={}, beginnings={})])
async def test_there_is_no_lag_without_partitions(consumer):
    assert await consumer_lag(consumer) == {}
