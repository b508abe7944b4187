"""Consumers at work on a real Kafka: how fast they drain a topic that was filled before, and how long a message waits.

A consumer under test is a process that reads the stage's input topic and publishes one record a message to its emotions topic:
the worker, or a peer.
"""

import json
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass

import psutil
from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType

from tests.support.stage import Stage
from tests.support.topic_reader import TopicReader, committed_of, consumer_for, ends_of
from tests.support.worker_process import WorkerProcess, wait_until
from worker.inference.model_bundle import DEFAULT_BUNDLE

CHATS = 500
PARTITIONS = 4
_WARM_UP_SHARE = 0.1
_LOOK_EVERY_S = 0.1


@dataclass(frozen=True, slots=True)
class Drain:
    """How a filled topic was drained. `cpu_s_per_million` and `rss_mb` are of the consumers' processes, children included."""

    per_s: float
    cpu_s_per_million: float
    rss_mb: float

    def as_dict(self) -> dict[str, float]:
        return {name: round(value, 1) for name, value in asdict(self).items()}


@dataclass(frozen=True, slots=True)
class Latency:
    """Milliseconds from a record's timestamp to its label's, which the broker stamps when it takes it."""

    offered_per_s: float
    messages: int
    p50_ms: float
    p95_ms: float
    p99_ms: float

    def as_dict(self) -> dict[str, float]:
        return {name: round(value, 1) for name, value in asdict(self).items()}


class Load:
    """Publishes to a stage's input topic and watches how far the group and its labels have come."""

    def __init__(self, stage: Stage, watcher: Consumer) -> None:
        self.stage = stage
        # No linger: a record's timestamp is when it was handed over, and waiting here would count as the consumer's.
        self._producer = Producer({"bootstrap.servers": stage.bootstrap_servers, "linger.ms": 0})
        self._watcher = watcher
        self._published = 0

    def publish(self, text: str) -> None:
        """Publish a text as the next message, in turn over the chats."""
        chat = f"chat-{self._published % CHATS}"
        value = {"message_id": f"m-{self._published}", "chat_id": chat, "text": text}
        self._producer.produce(self.stage.names.input, json.dumps(value, ensure_ascii=False).encode(), key=chat.encode())
        self._producer.poll(0)
        self._published += 1

    def flush(self) -> None:
        assert self._producer.flush(60) == 0

    def fill(self, texts: Sequence[str]) -> None:
        """Publish all texts and return once they are confirmed."""
        for number, text in enumerate(texts):
            self.publish(text)
            if number % 5000 == 4999:
                self.flush()
        self.flush()

    def labelled(self) -> int:
        """Return how many labels there are."""
        return sum(ends_of(self._watcher, self.stage.names.emotions).values())

    def committed(self) -> int:
        """Return how many messages the group has committed."""
        return sum(committed_of(self._watcher, self.stage.names.input).values())


@contextmanager
def filled_topics(bootstrap_servers: str, texts: Sequence[str]) -> Iterator[Load]:
    """Give topics of its own that hold the texts; workers started on their stage run the shipped model on all cores."""
    stage = Stage(bootstrap_servers, bundle=DEFAULT_BUNDLE, partitions=PARTITIONS)
    stage.environment |= {"RUGO_INFERENCE_THREADS": "0", "RUGO_SESSION_TIMEOUT_MS": "30000"}
    try:
        with consumer_for(bootstrap_servers, group_id=stage.group_id) as watcher:
            load = Load(stage.create_topics(), watcher)
            load.fill(texts)
            yield load
    finally:
        stage.close()


def measure_drain(
    load: Load,
    consumers: Sequence[WorkerProcess],
    *,
    messages: int,
    deadline_s: float,
    count_done: Callable[[Load], int] = Load.labelled,
) -> Drain:
    """Return the rate between the first tenth of the messages, which start-up and warm-up take, and the last message.

    Where the deadline comes first, what was done until then is measured.
    """
    _wait_for(load, consumers, count_done, count=int(messages * _WARM_UP_SHARE), deadline_s=deadline_s)
    started_s, first, cpu_s = time.perf_counter(), count_done(load), _cpu_s(consumers)
    rss_mb, count = 0.0, first
    while count < messages and time.perf_counter() - started_s < deadline_s:
        time.sleep(_LOOK_EVERY_S)
        _check_running(consumers)
        count, rss_mb = count_done(load), max(rss_mb, rss_of(consumers))
    taken_s, done = time.perf_counter() - started_s, count - first
    return Drain(done / taken_s, (_cpu_s(consumers) - cpu_s) / max(done, 1) * 1e6, rss_mb)


def measure_latency(load: Load, texts: Sequence[str], *, per_s: float, seconds: float) -> Latency:
    """Publish at a steady rate to consumers that are at work and have nothing to do, and return how long labels took."""
    names = load.stage.names
    _stamp_by_broker(load.stage)
    asked, labels = (TopicReader(load.stage.bootstrap_servers, topic) for topic in (names.input, names.emotions))
    asked.skip()
    labels.skip()
    count, before = max(20, int(per_s * seconds)), load.labelled()
    begun_s = time.perf_counter()
    for number in range(count):
        if (early_s := begun_s + number / per_s - time.perf_counter()) > 0:
            time.sleep(early_s)
        load.publish(texts[number % len(texts)])
    load.flush()
    wait_until(lambda: load.labelled() >= before + count, seconds + 120, what=f"{count} labels")
    sources = [(json.loads(each.value())["source"], each.timestamp()[1]) for each in labels.read()]
    answered = {(source["partition"], source["offset"]): at for source, at in sources}
    taken = sorted(answered[each.partition(), each.offset()] - each.timestamp()[1] for each in asked.read())
    cuts = statistics.quantiles(taken, n=100)
    return Latency(per_s, count, cuts[49], cuts[94], cuts[98])


def rss_of(consumers: Sequence[WorkerProcess]) -> float:
    """Return resident memory in megabytes, children included."""
    return sum(process.memory_info().rss for process in _processes(consumers)) / 1e6


def end(consumer: WorkerProcess) -> None:
    """End a consumer and the servers that it started."""
    children = psutil.Process(consumer.process.pid).children(recursive=True) if consumer.process.poll() is None else []
    consumer.kill()
    for child in children:
        with suppress(psutil.NoSuchProcess):
            child.kill()


def _wait_for(
    load: Load, consumers: Sequence[WorkerProcess], count_done: Callable[[Load], int], *, count: int, deadline_s: float
) -> None:
    give_up_at_s = time.monotonic() + deadline_s
    while count_done(load) < count:
        _check_running(consumers)
        assert time.monotonic() < give_up_at_s, "the consumers did not begin: " + consumers[0].log[-3000:]
        time.sleep(_LOOK_EVERY_S)


def _check_running(consumers: Sequence[WorkerProcess]) -> None:
    for consumer in consumers:
        assert consumer.process.poll() is None, consumer.log[-3000:]


def _cpu_s(consumers: Sequence[WorkerProcess]) -> float:
    return sum(sum(process.cpu_times()[:2]) for process in _processes(consumers))


def _processes(consumers: Sequence[WorkerProcess]) -> list[psutil.Process]:
    parents = [psutil.Process(each.process.pid) for each in consumers]
    return [*parents, *(child for parent in parents for child in parent.children(recursive=True))]


def _stamp_by_broker(stage: Stage) -> None:
    admin = AdminClient({"bootstrap.servers": stage.bootstrap_servers})
    entry = ConfigEntry("message.timestamp.type", "LogAppendTime", incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.TOPIC, stage.names.emotions, incremental_configs=[entry])
    for future in admin.incremental_alter_configs([resource]).values():
        future.result(30)
