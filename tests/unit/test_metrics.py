import json
import re
from pathlib import Path

import pytest
from aiokafka import TopicPartition as KafkaTopicPartition
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families
from typer.testing import CliRunner

from worker.__main__ import cli
from worker.core.drift import LabelBaseline
from worker.core.failures import ConfigurationError
from worker.core.labels import GOEMOTIONS_LABELS
from worker.core.records import TopicPartition
from worker.inference.executor import InferenceExecutor
from worker.inference.model_bundle import load_model_bundle
from worker.inference.onnx_classifier import OnnxClassifier
from worker.kafka.lag_watch import consumer_lag
from worker.settings import read_drift_baseline
from worker.telemetry.drift import MIN_MESSAGES, DriftWatch, baseline_of_events
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


def baseline(messages=2000, **shares):
    return LabelBaseline(
        source="a corpus",
        messages=messages,
        shares=dict.fromkeys(GOEMOTIONS_LABELS, 0.0) | shares,
        unlabelled=1 - sum(shares.values()),
    )


def test_drift_is_absent_without_a_baseline_and_before_there_are_messages_enough():
    metrics = Metrics()
    assert not [name for name, *_ in samples(metrics) if name.startswith("rugo_drift")]
    watch = DriftWatch(baseline(anger=0.1).counts(), window=5000, metrics=metrics)
    for _ in range(MIN_MESSAGES - 1):
        watch.observe(["anger"])
    assert ("rugo_drift_psi",) not in samples(metrics)
    watch.observe(["anger"])
    found = samples(metrics)
    assert found[("rugo_drift_window_messages",)] == MIN_MESSAGES
    assert found[("rugo_drift_psi",)] > 0.25
    assert found[("rugo_drift_emotion_psi", "anger")] > 0.25
    assert found[("rugo_drift_emotion_psi", "joy")] < 0.1


def test_drift_goes_when_the_window_has_moved_past_what_was_strange():
    metrics = Metrics()
    watch = DriftWatch(baseline(anger=0.5).counts(), window=200, metrics=metrics)
    for _ in range(200):
        watch.observe(["grief"])
    assert samples(metrics)[("rugo_drift_psi",)] > 0.25
    for number in range(200):
        watch.observe(["anger"] if number % 2 else [])
    assert samples(metrics)[("rugo_drift_psi",)] < 0.1


def test_a_baseline_is_made_of_the_clients_emotion_events():
    events = [
        {"author": "client", "emotions": [{"label": "anger"}, {"label": "disgust"}]},
        {"author": "operator", "emotions": [{"label": "joy"}]},
        {"text": "as classify prints it", "emotions": []},
    ]
    made = baseline_of_events([json.dumps(each).encode() for each in events] + [b"\n"], source="ours")
    assert (made.source, made.messages, made.unlabelled) == ("ours", 2, 0.5)
    assert {label: share for label, share in made.shares.items() if share} == {"anger": 0.5, "disgust": 0.5}


def test_the_command_line_makes_the_baseline_and_prints_the_page():
    event = json.dumps({"author": "client", "emotions": [{"label": "joy"}]})
    made = CliRunner().invoke(cli, ["baseline", "--source", "the chats of March"], input=f"{event}\n{event}\n")
    assert (made.exit_code, json.loads(made.stdout)["messages"]) == (0, 2)
    assert json.loads(made.stdout)["source"] == "the chats of March"
    assert CliRunner().invoke(cli, ["metrics"]).stdout == PAGE.read_text("utf-8")


@pytest.mark.parametrize("line", [b"not json", b"[]", b'{"emotions": 3}', b'{"text": "no emotions"}'])
def test_what_is_no_emotion_event_is_named_by_its_line_and_not_quoted(line):
    with pytest.raises(ConfigurationError, match="line 2") as caught:
        baseline_of_events([b'{"emotions": []}', line], source="ours")
    assert "no emotions" not in str(caught.value)


def test_no_events_make_no_baseline():
    with pytest.raises(ConfigurationError, match="no emotion event"):
        baseline_of_events([], source="ours")


def test_a_baseline_file_is_read_back_and_another_file_refused_with_the_setting(tmp_path):
    path = tmp_path / "baseline.json"
    path.write_text(baseline(anger=0.25).model_dump_json(), "utf-8")
    assert read_drift_baseline(path).counts().given["anger"] == 500
    path.write_text("{}", "utf-8")
    with pytest.raises(ConfigurationError, match="RUGO_DRIFT_BASELINE"):
        read_drift_baseline(path)


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
