"""Reads topics back as a careful consumer does: committed records only, from where it stopped to the present end."""

import json
import re
import zlib
from collections.abc import Iterable, Iterator
from typing import Any

from confluent_kafka import Consumer, KafkaException, TopicPartition

from tests.chaos.ledger import Escalation, Outcome, Position
from tests.support.processes import comes_true

_STALL_S = 90.0
_WHEN_PROCESSED = re.compile(rb'"(classified_at|raised_at)":"[^"]*",?')
# What of a dead letter's headers is not a matter of the record alone.
_NOT_COMPARED = ("dlq.error", "dlq.worker_version")


class TopicReader:
    """Reads one topic on; each `read` begins where the one before it stopped."""

    def __init__(self, bootstrap_servers: str, topic: str) -> None:
        self._topic = topic
        self._next: dict[int, int] = {}
        self._settings = {
            "bootstrap.servers": bootstrap_servers,
            "group.id": "chaos-ledger",
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
            "auto.offset.reset": "error",
            "check.crcs": True,
        }

    def read(self) -> Iterator[Any]:
        """Yield the messages up to the ends that the partitions have now, partition by partition."""
        consumer = Consumer(self._settings)
        try:
            for partition in self._partitions(consumer):
                yield from self._read_partition(consumer, partition)
        finally:
            consumer.close()

    def start_over(self) -> None:
        """Begin at offset 0 again: the topic was made anew."""
        self._next = {}

    def _partitions(self, consumer: Consumer) -> list[int]:
        found: list[int] = []

        def has_leaders() -> bool:
            try:
                described = consumer.list_topics(self._topic, timeout=10).topics[self._topic].partitions
            except KafkaException:
                return False
            found[:] = sorted(described)
            return bool(described) and all(each.leader >= 0 for each in described.values())

        if not comes_true(has_leaders, _STALL_S):
            raise AssertionError(f"{self._topic} has no leaders")
        return found

    def _read_partition(self, consumer: Consumer, partition: int) -> Iterator[Any]:
        first = self._next.get(partition, 0)
        _, end = consumer.get_watermark_offsets(TopicPartition(self._topic, partition), timeout=30)
        if first >= end:
            return
        consumer.assign([TopicPartition(self._topic, partition, first)])
        idle = 0
        while (reached := self._reached(consumer, partition, first)) < end:
            messages = consumer.consume(1000, timeout=0.5)
            for message in messages:
                if message.error():
                    raise KafkaException(message.error())
                if message.offset() < end:
                    yield message
            idle = 0 if messages else idle + 1
            if idle > _STALL_S / 0.5:
                raise AssertionError(f"{self._topic}-{partition} can't be read beyond {reached}, its end is {end}")
        self._next[partition] = end

    def _reached(self, consumer: Consumer, partition: int, first: int) -> int:
        # Control records take offsets and are never seen: the consumer's own position counts them.
        (at,) = consumer.position([TopicPartition(self._topic, partition)])
        return first if at.offset < 0 else int(at.offset)


def label_of(message: Any) -> Outcome:
    """Return the outcome that an emotion event is."""
    event = json.loads(message.value())
    return label_outcome(event, message.value())


def label_outcome(event: Any, value: bytes) -> Outcome:
    """Return the outcome of an emotion event, given parsed and as it travels."""
    position = (event["source"]["partition"], event["source"]["offset"])
    return Outcome(position, "label", event["event_id"], digest_of(value), event["chat_id"])


def dead_letter_outcome(message: Any) -> Outcome:
    """Return the outcome that a dead letter is."""
    return dead_letter_of(message.key(), message.value(), message.headers() or ())


def dead_letter_of(key: bytes | None, value: bytes | None, headers: Iterable[tuple[str, bytes | None]]) -> Outcome:
    """Return the outcome that a dead letter of these parts is."""
    headers = list(headers)
    found = dict(headers)
    position = (int(found["dlq.partition"] or b""), int(found["dlq.offset"] or b""))
    compared = [each for each in headers if each[0] not in _NOT_COMPARED]
    return Outcome(position, "dead letter", "", zlib.crc32(repr((key, value, compared)).encode()), (key or b"").decode())


def escalation_of(value: bytes) -> Escalation:
    """Return the escalation of an escalation event."""
    event = json.loads(value)
    return Escalation(_position_in(event["event_id"]), event["event_id"], digest_of(value), event["chat_id"])


def digest_of(value: bytes) -> int:
    """Return a digest of what an event says, the time of its processing left out."""
    return zlib.crc32(_WHEN_PROCESSED.sub(b"", value))


def _position_in(event_id: str) -> Position:
    partition, _, offset = event_id.rpartition(":")[2].rpartition("-")
    return int(partition.rpartition("-")[2]), int(offset)
