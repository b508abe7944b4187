"""Reads topics as a careful consumer does: how far they go, how far a group has come, and what committed records say."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

_STALL_S = 90.0
_POLL_S = 0.2
_POLL_RECORDS = 1000
_Answer = TypeVar("_Answer")
# librdkafka tells of every refused connection; here brokers are refused on purpose
SILENT = logging.getLogger("tests.silent")
SILENT.disabled = True


class TopicReader:
    """Reads one topic on; each `read` begins where the one before it stopped. What transactions aborted is not seen."""

    def __init__(self, bootstrap_servers: str, topic: str) -> None:
        self._servers = bootstrap_servers
        self._topic = topic
        self._next: dict[int, int] = {}

    def read(self) -> Iterator[Any]:
        """Yield the messages up to the ends that the partitions have now, each partition's in order."""
        with consumer_for(self._servers) as consumer:
            ends = patiently(lambda: ends_of(consumer, self._topic), _STALL_S)
            starts = {each: self._next.get(each, 0) for each in ends}
            unread = {each for each, end in ends.items() if starts[each] < end}
            consumer.assign([TopicPartition(self._topic, each, starts[each]) for each in unread])
            give_up_at_s = time.monotonic() + _STALL_S
            while unread:
                for message in _next_messages(consumer):
                    give_up_at_s = time.monotonic() + _STALL_S
                    if message.offset() < ends[message.partition()]:
                        yield message
                unread -= self._reached(consumer, unread, ends)
                assert time.monotonic() < give_up_at_s, f"{self._topic} can't be read to its ends {ends} in {sorted(unread)}"
            self._next |= ends

    def skip(self) -> None:
        """Pass over all that is there now."""
        with consumer_for(self._servers) as consumer:
            self._next = patiently(lambda: ends_of(consumer, self._topic), _STALL_S)

    def start_over(self) -> None:
        """Begin at offset 0 again: the topic was made anew."""
        self._next = {}

    def _reached(self, consumer: Consumer, partitions: set[int], ends: dict[int, int]) -> set[int]:
        # Control records take offsets and are never seen: the consumer's own position counts them.
        at = consumer.position([TopicPartition(self._topic, each) for each in partitions])
        return {each.partition for each in at if each.offset >= ends[each.partition]}


def ends_of(consumer: Consumer, topic: str, *, timeout_s: float = 20.0) -> dict[int, int]:
    """Return the end of each partition of a topic. Raises `KafkaException` while the broker can't say."""
    parts = _partitions_of(consumer, topic, timeout_s=timeout_s)
    return {each.partition: consumer.get_watermark_offsets(each, timeout=timeout_s)[1] for each in parts}


def committed_of(consumer: Consumer, topic: str, *, timeout_s: float = 20.0) -> dict[int, int]:
    """Return the next offset of the consumer's group in each partition, 0 where nothing is committed; raises as `ends_of`."""
    parts = _partitions_of(consumer, topic, timeout_s=timeout_s)
    return {each.partition: max(0, each.offset) for each in consumer.committed(parts, timeout=timeout_s)}


def patiently(ask: Callable[[], _Answer], deadline_s: float = 30.0) -> _Answer:
    """Return what is asked for, asking again while a broker that has just started has no leader for a partition."""
    give_up_at_s = time.monotonic() + deadline_s
    while True:
        try:
            return ask()
        except KafkaException:
            if time.monotonic() > give_up_at_s:
                raise
            time.sleep(0.1)


@contextmanager
def consumer_for(bootstrap_servers: str, *, group_id: str | None = None) -> Iterator[Consumer]:
    """Give a consumer that commits nothing: a reader of committed records, or one that asks what a group has committed.

    The latter reads uncommitted records: others are told a group's offsets only once no transaction of it is open, which
    under load is seldom, and while a worker is frozen in one never.
    """
    settings = {
        "bootstrap.servers": bootstrap_servers,
        "group.id": group_id or "tests-reader",
        "enable.auto.commit": False,
        "isolation.level": "read_uncommitted" if group_id else "read_committed",
        "auto.offset.reset": "error",
        "check.crcs": True,
    }
    consumer = Consumer(settings, logger=SILENT)
    try:
        yield consumer
    finally:
        consumer.close()


def _next_messages(consumer: Consumer) -> list[Any]:
    first = consumer.poll(_POLL_S)
    found = [] if first is None else [first, *consumer.consume(_POLL_RECORDS, timeout=0)]
    for message in found:
        if message.error():
            raise KafkaException(message.error())
    return found


def _partitions_of(consumer: Consumer, topic: str, *, timeout_s: float) -> list[TopicPartition]:
    described = consumer.list_topics(topic, timeout=timeout_s).topics[topic].partitions
    if not described or any(each.leader < 0 for each in described.values()):
        raise KafkaException(KafkaError(KafkaError.LEADER_NOT_AVAILABLE, f"{topic} has no leaders"))
    return [TopicPartition(topic, each) for each in sorted(described)]
