"""What a chaos run plays with: the broker, the topics, the producers of messages, the workers."""

import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from confluent_kafka import KafkaException, Producer
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    NewTopic,
    ResourceType,
)

from tests.chaos.crew import Crew
from tests.chaos.ledger import Delivery, Outcome
from tests.chaos.messages import InputRecord, MessageSource
from tests.chaos.reading import dead_letter_outcome
from tests.support.kafka_server import KafkaServer
from tests.support.stage import Stage
from tests.support.topic_reader import SILENT, TopicReader, committed_of, consumer_for, ends_of
from worker.kafka.topics import DEAD_LETTER_MAX_BYTES

BROKER_SETTINGS = {
    # records keep their place whatever their clocks say
    "log.retention.ms": "-1",
    "log.message.timestamp.after.max.ms": str(2**63 - 1),
    "log.message.timestamp.before.max.ms": str(2**63 - 1),
    "transaction.abort.timed.out.transaction.cleanup.interval.ms": "1000",
}
_ADMIN_TIMEOUT_S = 10.0
_ANSWER_S = 3.0
_SAID_WITHOUT_A_BROKER = (
    "no Kafka broker answered",
    "the broker refuses",
    "what is remembered of the chats could not be read",
    "the input topic can't be read",
)


@dataclass
class World:
    """Everything that faults act on. `is_broker_in_trouble` is set for as long as a fault has the broker."""

    kafka: KafkaServer
    stage: Stage
    crew: Crew
    source: MessageSource
    rng: random.Random
    delivery: Delivery
    is_broker_in_trouble: bool = False
    are_topics_in_trouble: bool = False
    is_producers_clock_wrong: bool = False
    dead_letters: list[Outcome] = field(default_factory=list)
    _dead_letter_reader: TopicReader = field(init=False)
    _servers: dict[str, Any] = field(init=False)
    _producer: Producer = field(init=False)
    _admin: AdminClient = field(init=False)
    _confirmed: int = 0

    def __post_init__(self) -> None:
        self._servers = {"bootstrap.servers": self.kafka.bootstrap_servers}
        self._producer = Producer(
            self._servers
            | {
                "acks": "all",
                "linger.ms": 5,
                "delivery.timeout.ms": 600_000,
                "queue.buffering.max.messages": 2_000_000,
                "topic.metadata.refresh.interval.ms": 2000,
            },
            logger=SILENT,
        )
        self._admin = AdminClient(self._servers, logger=SILENT)
        self._dead_letter_reader = TopicReader(self.kafka.bootstrap_servers, self.stage.names.dead_letter)

    @property
    def confirmed(self) -> int:
        """How many messages the broker has confirmed to their producer."""
        return self._confirmed

    def publish(self, count: int) -> None:
        """Publish the next messages; returns before they are confirmed."""
        for _ in range(count):
            self._produce(self.source.next(time.time()))

    def publish_malformed(self, count: int) -> None:
        """Publish malformed records, over all partitions."""
        for number in range(count):
            now_ms = int(time.time() * 1000)
            self._produce(self.source.malformed(now_ms, chat_id=f"chat-{number}"))
            self.source.published += 1

    def flush(self, timeout_s: float) -> None:
        """Return once all messages are confirmed; fail the run when they are not in time."""
        assert self._producer.flush(timeout_s) == 0, "not all messages could be published"

    def poll_producer(self) -> None:
        self._producer.poll(0)

    def _produce(self, record: InputRecord) -> None:
        self._producer.produce(
            self.stage.names.input,
            value=record.value,
            key=record.key,
            headers=list(record.headers),
            timestamp=record.timestamp_ms,
            on_delivery=self._note_delivery,
        )
        self._producer.poll(0)

    def _note_delivery(self, error: Any, _message: Any) -> None:
        if error is not None:
            raise AssertionError(f"a message could not be published: {error}")
        self._confirmed += 1

    # The group's progress.

    def unsettled(self) -> int | None:
        """Return how many input positions are not committed yet; None while the broker can't say."""
        try:
            with consumer_for(self.kafka.bootstrap_servers, group_id=self.stage.group_id) as consumer:
                committed = committed_of(consumer, self.stage.names.input, timeout_s=_ANSWER_S)
                ends = ends_of(consumer, self.stage.names.input, timeout_s=_ANSWER_S)
        except KafkaException:
            return None
        return sum(max(0, end - committed.get(partition, 0)) for partition, end in ends.items())

    # Topics.

    def partitions_of(self, topic: str) -> int:
        return len(self._admin.list_topics(topic, timeout=_ADMIN_TIMEOUT_S).topics[topic].partitions)

    def add_partitions(self, topic: str, count: int) -> None:
        total = self.partitions_of(topic) + count
        _settle(self._admin.create_partitions([NewPartitions(topic, total)], request_timeout=_ADMIN_TIMEOUT_S))

    def delete_topic(self, topic: str) -> None:
        _settle(self._admin.delete_topics([topic], request_timeout=_ADMIN_TIMEOUT_S))

    def keep_dead_letters(self) -> None:
        """Read on in the dead-letter topic: what is in it may be about to go."""
        self.dead_letters += [dead_letter_outcome(each) for each in self._dead_letter_reader.read()]

    def create_dead_letter_topic(self, partitions: int) -> None:
        config = {"max.message.bytes": str(DEAD_LETTER_MAX_BYTES)}
        made = NewTopic(self.stage.names.dead_letter, partitions, replication_factor=1, config=config)
        _settle(self._admin.create_topics([made], request_timeout=_ADMIN_TIMEOUT_S))
        self._dead_letter_reader.start_over()

    def limit_dead_letters(self, max_bytes: int) -> None:
        """Set the dead-letter topic's max.message.bytes."""
        entry = ConfigEntry("max.message.bytes", str(max_bytes), incremental_operation=AlterConfigOpType.SET)
        where = ConfigResource(ResourceType.TOPIC, self.stage.names.dead_letter, incremental_configs=[entry])
        _settle(self._admin.incremental_alter_configs([where], request_timeout=_ADMIN_TIMEOUT_S))

    # The broker.

    @contextmanager
    def broker_trouble(self) -> Iterator[None]:
        """Take the broker for one fault, and excuse workers that end because of it."""
        self.is_broker_in_trouble = True
        try:
            with self.crew.excused(*_SAID_WITHOUT_A_BROKER):
                yield
        finally:
            self.is_broker_in_trouble = False


def _settle(answers: Any) -> None:
    for answer in answers.values():
        answer.result(_ADMIN_TIMEOUT_S)


def make_world(
    kafka: KafkaServer, *, bundle: Path, folder: Path, seed: int, delivery: Delivery, workers: int, mutation: str = ""
) -> World:
    """Return a world with topics made and no worker started."""
    stage = Stage(kafka.bootstrap_servers, bundle=bundle, partitions=6).create_topics()
    environment = {
        "RUGO_DELIVERY": delivery,
        "RUGO_ESCALATION_POLICY": str(Path(__file__).with_name("policy.toml")),
        "RUGO_BROKER_DEADLINE_S": "15",
        "RUGO_STOP_DEADLINE_S": "15",
        "RUGO_REBALANCE_TIMEOUT_MS": "12000",
        "RUGO_MAX_POLL_RECORDS": "100",
        "CHAOS_MUTATION": mutation,
    }
    crew = Crew(stage, folder, environment, most=workers)
    return World(kafka, stage, crew, MessageSource(seed), random.Random(f"faults {seed}"), delivery)
