"""Every metric of the worker, declared once."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Metrics:
    """The worker's metrics on a registry of their own, so that several workers can live in one process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        registry = self.registry
        self.records_in = Counter("rugo_records_in", "Records read from the input topic", registry=registry)
        self.events_out = Counter("rugo_events_out", "Events confirmed by the broker", ["topic"], registry=registry)
        self.dead_letters = Counter("rugo_dead_letters", "Records sent to the dead-letter topic", ["reason"], registry=registry)
        self.escalations = Counter("rugo_escalations", "Escalations published", ["reason"], registry=registry)
        self.labels = Counter("rugo_labels", "Labels published", ["label"], registry=registry)
        self.tones = Counter("rugo_tones", "Messages by tone", ["tone"], registry=registry)
        self.poll_records = Histogram(
            "rugo_poll_records", "Records of one poll", buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024), registry=registry
        )
        self.inference_seconds = Histogram(
            "rugo_inference_seconds", "Tokenizing and inference of one poll", buckets=_SECONDS, registry=registry
        )
        self.publish_seconds = Histogram(
            "rugo_publish_seconds", "Publishing one poll's events until all are confirmed", buckets=_SECONDS, registry=registry
        )
        self.latency_seconds = Histogram(
            "rugo_latency_seconds", "From a record's timestamp to its confirmed event", buckets=_SECONDS, registry=registry
        )
        self.commits_lost = Counter("rugo_commits_lost", "Commits refused as the partitions had moved on", registry=registry)
        self.rebalances = Counter("rugo_rebalances", "Times that partitions were assigned", registry=registry)
        self.assigned_partitions = Gauge("rugo_assigned_partitions", "Partitions assigned now", registry=registry)
        self.remembered_chats = Gauge("rugo_remembered_chats", "Chats that the escalation policy remembers", registry=registry)
