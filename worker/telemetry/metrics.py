"""Every metric, declared once: what /metrics serves, and what docs/metrics.md is made of.

Labels take few values, known beforehand but for topics and partitions: never an id of a chat, a message or an operator.
"""

import platform
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, TypeVar, get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, ProcessCollector

from worker import __version__
from worker.contracts.dead_letter import RejectionReason
from worker.contracts.outbound import EscalationReason
from worker.core.labels import GOEMOTIONS_LABELS, Tone
from worker.core.records import TopicPartition

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_LONG_SECONDS = (*_SECONDS[3:], 60.0, 120.0, 300.0, 900.0, 3600.0)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)

Kind = TypeVar("Kind", Counter, Gauge, Histogram, Info)


@dataclass(frozen=True, slots=True)
class Declared:
    """A metric as the docs show it; `name` is the one that is queried."""

    name: str
    kind: str
    labels: tuple[str, ...]
    what: str


class Metrics:
    """The worker's metrics on a registry of their own, so that several workers can live in one process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.declared: list[Declared] = []
        self._declare_flow()
        self._declare_what_was_heard()
        self._declare_stages()
        self._declare_kafka()
        self._declare_drift()
        self._declare_identity()
        ProcessCollector(registry=self.registry)

    def _declare_flow(self) -> None:
        self.records_in = self._add(Counter, "rugo_records_in", "Records read from the input topic and settled")
        self.events_out = self._add(Counter, "rugo_events_out", "Records published and confirmed by the broker", "topic")
        self.dead_letters = self._add(Counter, "rugo_dead_letters", "Records sent to the dead-letter topic", "reason")
        self.latency_seconds = self._add(
            Histogram, "rugo_latency_seconds", "From a record's timestamp to its confirmed event", buckets=_LONG_SECONDS
        )
        _start_at_zero(self.dead_letters, get_args(RejectionReason))

    def _declare_what_was_heard(self) -> None:
        self.labels = self._add(Counter, "rugo_labels", "Messages that were given the label, of all authors", "emotion")
        self.tones = self._add(Counter, "rugo_tones", "Messages by tone, of all authors", "tone")
        self.escalations = self._add(Counter, "rugo_escalations", "Escalations published and confirmed", "reason")
        self.remembered_chats = self._add(Gauge, "rugo_remembered_chats", "Chats that the escalation policy remembers")
        self.crowded_out_chats = self._add(
            Counter, "rugo_crowded_out_chats", "Chats forgotten too early, as RUGO_MAX_REMEMBERED_CHATS are remembered"
        )
        _start_at_zero(self.labels, GOEMOTIONS_LABELS)
        _start_at_zero(self.tones, get_args(Tone))
        _start_at_zero(self.escalations, get_args(EscalationReason))

    def _declare_stages(self) -> None:
        self.poll_records = self._add(Histogram, "rugo_poll_records", "Records of one poll", buckets=_SIZES)
        self.inference_seconds = self._add(
            Histogram, "rugo_inference_seconds", "Tokenizing and inference of one poll, waiting included", buckets=_SECONDS
        )
        self.tokenize_seconds = self._add(Histogram, "rugo_tokenize_seconds", "Tokenizing one poll's texts", buckets=_SECONDS)
        self.micro_batch_seconds = self._add(
            Histogram, "rugo_micro_batch_seconds", "The model's run on one micro-batch", buckets=_SECONDS
        )
        self.micro_batch_texts = self._add(Histogram, "rugo_micro_batch_texts", "Texts of one micro-batch", buckets=_SIZES)
        self.tokens = self._add(Counter, "rugo_tokens", "Tokens of the texts that the model ran on")
        self.padded_tokens = self._add(
            Counter,
            "rugo_padded_tokens",
            "Tokens that the model ran on, padding included: 1 - tokens / this is padding's share",
        )
        self.cache_hits = self._add(Counter, "rugo_cache_hits", "Short texts whose answers were remembered")
        self.cache_misses = self._add(Counter, "rugo_cache_misses", "Short texts whose answers were not remembered")
        self.publish_seconds = self._add(
            Histogram, "rugo_publish_seconds", "Publishing one poll's events until all are confirmed", buckets=_SECONDS
        )
        self.commit_seconds = self._add(Histogram, "rugo_commit_seconds", "Storing one poll's next offsets", buckets=_SECONDS)

    def _declare_kafka(self) -> None:
        self.consumer_lag = self._add(
            Gauge, "rugo_consumer_lag_records", "Records of the input topic that are not committed yet", "topic", "partition"
        )
        self.assigned_partitions = self._add(Gauge, "rugo_assigned_partitions", "Partitions assigned now")
        self.rebalances = self._add(Counter, "rugo_rebalances", "Times that partitions were assigned")
        self.commits_lost = self._add(Counter, "rugo_commits_lost", "Commits refused as the partitions had moved on")
        self.broker_reachable = self._add(Gauge, "rugo_broker_reachable", "1 while the broker answers, else 0")
        self.ready = self._add(Gauge, "rugo_ready", "1 while /ready is 200, else 0")

    def _declare_drift(self) -> None:
        self._shows_drift = False
        self.drift = self._add(
            Gauge, "rugo_drift_psi", "Population stability index of all labels against the baseline", is_late=True
        )
        self.drift_by_label = self._add(
            Gauge, "rugo_drift_emotion_psi", "The same of one label: given or not", "emotion", is_late=True
        )
        self.drift_messages = self._add(
            Gauge, "rugo_drift_window_messages", "Client messages that drift is measured on now", is_late=True
        )

    def _declare_identity(self) -> None:
        self.model = self._add(Info, "rugo_model", "The model bundle: name, version, digest")
        build = self._add(Info, "rugo_build", "The worker: its version, Python's and onnxruntime's")
        build.info({"version": __version__, "python": platform.python_version(), "onnxruntime": version("onnxruntime")})

    def tokenized(self, seconds: float) -> None:
        """Note the time that a poll's tokenizing took."""
        self.tokenize_seconds.observe(seconds)

    def ran_micro_batch(self, *, texts: int, tokens: int, padded_tokens: int, seconds: float) -> None:
        """Note a micro-batch: its size, its padding and the model's time."""
        self.micro_batch_texts.observe(texts)
        self.tokens.inc(tokens)
        self.padded_tokens.inc(padded_tokens)
        self.micro_batch_seconds.observe(seconds)

    def looked_up(self, *, hits: int, misses: int) -> None:
        """Note how many short texts of a poll the cache knew."""
        self.cache_hits.inc(hits)
        self.cache_misses.inc(misses)

    def set_lag(self, lags: Mapping[TopicPartition, int]) -> None:
        """Show the lag of these partitions and of no others."""
        kept = {(each.topic, str(each.partition)) for each in lags}
        shown = {tuple(sample.labels.values()) for metric in self.consumer_lag.collect() for sample in metric.samples}
        for gone in shown - kept:
            self.consumer_lag.remove(*gone)
        for each, lag in lags.items():
            self.consumer_lag.labels(each.topic, each.partition).set(lag)

    def show_drift_window(self) -> None:
        """Serve the number of messages that drift is measured on, which is absent without a baseline to measure against."""
        self.registry.register(self.drift_messages)

    def set_drift(self, overall: float, *, by_label: Mapping[str, float]) -> None:
        """Set the indexes of drift, which are absent before the first time."""
        self.drift.set(overall)
        for label, index in by_label.items():
            self.drift_by_label.labels(label).set(index)
        if not self._shows_drift:
            self._shows_drift = True
            self.registry.register(self.drift)
            self.registry.register(self.drift_by_label)

    def _add(
        self,
        kind: type[Kind],
        name: str,
        what: str,
        *labels: str,
        buckets: tuple[float, ...] | None = None,
        is_late: bool = False,
    ) -> Kind:
        suffix = {Counter: "_total", Info: "_info"}.get(kind, "")
        self.declared.append(Declared(name + suffix, kind.__name__.lower(), labels, what))
        registry = None if is_late else self.registry
        options: dict[str, Any] = {} if buckets is None else {"buckets": buckets}
        return kind(name, what, labels, registry=registry, **options)


def _start_at_zero(counter: Counter, values: Iterable[str]) -> None:
    # A series that begins with its first event has no rate for it.
    for each in values:
        counter.labels(each)


def metrics_page() -> str:
    """Return docs/metrics.md."""
    lines = ["| metric | kind | labels | what it is |", "|---|---|---|---|"]
    for each in Metrics().declared:
        labels = ", ".join(f"`{label}`" for label in each.labels)
        lines.append(f"| `{each.name}` | {each.kind} | {labels} | {each.what} |")
    return "\n".join([_HEAD, *lines, "", _FOOT])


_HEAD = """# Metrics

What `/metrics` serves, in Prometheus' text format. Printed by `python -m worker metrics`.
"""

_FOOT = """A histogram is queried by `_bucket`, `_sum` and `_count`. On Linux the process's own are there too:
`process_cpu_seconds_total`, `process_resident_memory_bytes`, `process_start_time_seconds`, `process_open_fds` and their like.

Counts are of this process: sum them over the workers. What is counted is counted once the broker has confirmed it; a poll that
is read again after a crash counts again, as its repeats are published again. There is no `rugo_drift_…` without a baseline to
measure against, and no index before a thousand client messages."""
