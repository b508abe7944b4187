"""Reads the dead-letter topic from beginning to end, and sends dead letters back to the input topic."""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka import TopicPartition as KafkaTopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError, UnknownTopicOrPartitionError, for_code

from worker.core.dead_letters import DeadLetter, Redrive, Redriven, dead_letter_of
from worker.core.failures import DeadLetterError, PublishRefusedError, TopicsMissingError
from worker.kafka.connection import BrokerConnection
from worker.kafka.record_batches import must_travel_alone, read_any_header_key, record_of, send_alone
from worker.kafka.topics import why_unavailable

_POLL_TIMEOUT_MS = 500
_MAX_POLL_RECORDS = 500
_UNCONFIRMED = 500


@asynccontextmanager
async def open_dead_letters(
    connection: BrokerConnection, *, topic: str, group_id: str, deadline_s: float
) -> "AsyncIterator[DeadLetterTopic]":
    """Yield the dead-letter topic as it stands now; what comes later is not in it.

    Raises `TopicsMissingError`, or `BrokerUnavailableError` when the broker does not answer within the deadline.
    """
    read_any_header_key()
    consumer = AIOKafkaConsumer(
        **connection.client_options(),
        group_id=group_id,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        isolation_level="read_committed",
        request_timeout_ms=int(deadline_s * 1000),
    )
    admin = AIOKafkaAdminClient(**connection.client_options(), request_timeout_ms=int(deadline_s * 1000))
    try:
        async with asyncio.timeout(deadline_s):
            await consumer.start()
            await admin.start()
            opened = DeadLetterTopic(consumer, topic=topic, deadline_s=deadline_s)
            await opened.look(await _partitions_of(admin, topic), await admin.list_consumer_group_offsets(group_id))
        yield opened
    except (KafkaError, OSError, TimeoutError) as error:
        raise await why_unavailable(connection, deadline_s=deadline_s, error=error) from error
    finally:
        await admin.close()
        await consumer.stop()


class DeadLetterTopic:
    """The dead letters between the topic's beginnings and the ends that it had when it was opened.

    - What was sent back is remembered as the offsets of a group that nobody ever joins, each with a note.
    - One reader at a time: `read`, `fetch` and `remember` share one consumer.
    """

    def __init__(self, consumer: Any, *, topic: str, deadline_s: float) -> None:
        self._consumer = consumer
        self._topic = topic
        self._deadline_s = deadline_s
        self._first: dict[KafkaTopicPartition, int] = {}
        self._ends: dict[KafkaTopicPartition, int] = {}
        self._redriven: dict[KafkaTopicPartition, Redriven] = {}

    @property
    def size(self) -> int:
        """How many offsets there are to read, at most that many dead letters."""
        return sum(self._ends.values()) - sum(self._first.values())

    async def look(self, partitions: Sequence[KafkaTopicPartition], committed: Any) -> None:
        """Note beginnings, ends, and what was sent back."""
        self._consumer.assign(partitions)
        self._first = await self._consumer.beginning_offsets(partitions)
        self._ends = await self._consumer.end_offsets(partitions)
        for each in partitions:
            stored = committed.get(each)
            known = (
                Redriven.from_note(stored.offset, stored.metadata) if stored is not None and stored.offset >= 0 else Redriven()
            )
            self._redriven[each] = known.from_offset(self._first[each])

    def was_redriven(self, letter: DeadLetter) -> bool:
        """Return whether the dead letter was sent back already."""
        return letter.record.offset in self._redriven[_partition_of(letter)]

    async def read(self, *, since_ms: int | None = None) -> AsyncIterator[DeadLetter]:
        """Yield the dead letters, those of one partition in their order; with `since_ms`, those written from then on."""
        starts = dict(self._first)
        if since_ms is not None:
            found = await self._consumer.offsets_for_times(dict.fromkeys(self._first, since_ms))
            starts = {each: found[each].offset if found.get(each) else self._ends[each] for each in self._first}
        for partition, start in starts.items():
            async for letter in self._read_partition(partition, start, end=self._ends[partition]):
                yield letter

    async def fetch(self, positions: Collection[tuple[int, int]]) -> list[DeadLetter]:
        """Return the dead letters at these partitions and offsets. Raises `DeadLetterError` where there is none."""
        found = []
        for number, offset in positions:
            partition = KafkaTopicPartition(self._topic, number)
            if not self._first.get(partition, 0) <= offset < self._ends.get(partition, 0):
                raise DeadLetterError(f"there is no dead letter at {number}-{offset}: {self._what_there_is()}")
            letters = [letter async for letter in self._read_partition(partition, offset, end=offset + 1)]
            if not letters:
                raise DeadLetterError(f"there is no dead letter at {number}-{offset}: that offset holds no record")
            found += letters
        return found

    async def remember(self, letters: Sequence[DeadLetter]) -> None:
        """Store that these were sent back. Raises `DeadLetterError` when they lie too scattered for that."""
        offsets: dict[KafkaTopicPartition, list[int]] = {}
        for letter in letters:
            offsets.setdefault(_partition_of(letter), []).append(letter.record.offset)
        self._redriven |= {each: self._redriven[each].including(sent) for each, sent in offsets.items()}
        stored = {each: (self._redriven[each].next_offset, self._redriven[each].note()) for each in offsets}
        async with asyncio.timeout(self._deadline_s):
            await self._consumer.commit(stored)

    async def _read_partition(self, partition: KafkaTopicPartition, start: int, *, end: int) -> AsyncIterator[DeadLetter]:
        if start >= end:
            return
        self._consumer.pause(*(each for each in self._first if each != partition))
        self._consumer.resume(partition)
        self._consumer.seek(partition, start)
        expected = start
        while await self._consumer.position(partition) < end:
            for raw in await self._next_poll(partition):
                if raw.offset >= end:
                    return
                self._skip(partition, expected, raw.offset)
                expected = raw.offset + 1
                yield dead_letter_of(record_of(raw))
        self._skip(partition, expected, end)

    async def _next_poll(self, partition: KafkaTopicPartition) -> Sequence[Any]:
        async with asyncio.timeout(self._deadline_s):
            start = await self._consumer.position(partition)
            while True:
                polled = await self._consumer.getmany(partition, timeout_ms=_POLL_TIMEOUT_MS, max_records=_MAX_POLL_RECORDS)
                if polled or await self._consumer.position(partition) != start:
                    return polled.get(partition, [])

    def _skip(self, partition: KafkaTopicPartition, first: int, end: int) -> None:
        # Offsets without a record (a transaction's end has one) would hold up `next_offset`.
        if first < end:
            self._redriven[partition] = self._redriven[partition].including(range(first, end))

    def _what_there_is(self) -> str:
        spans = [
            f"{each.partition}-{first} to {each.partition}-{self._ends[each] - 1}"
            for each, first in self._first.items()
            if first < self._ends[each]
        ]
        return f"{self._topic} holds " + (", ".join(spans) if spans else "none")


async def _partitions_of(admin: Any, topic: str) -> list[KafkaTopicPartition]:
    [described] = await admin.describe_topics([topic])
    if described["error_code"] == UnknownTopicOrPartitionError.errno:
        raise TopicsMissingError(
            f"there is no topic {topic}: set RUGO_DEAD_LETTER_TOPIC, or run `python -m worker topics create`."
        )
    if described["error_code"]:
        raise for_code(described["error_code"])(topic)
    return [KafkaTopicPartition(topic, each["partition"]) for each in described["partitions"]]


def _partition_of(letter: DeadLetter) -> KafkaTopicPartition:
    return KafkaTopicPartition(letter.record.topic, letter.record.partition)


async def send_back(
    connection: BrokerConnection,
    redrives: AsyncIterator[Redrive],
    *,
    opened: DeadLetterTopic,
    deadline_s: float,
    on_sent: Callable[[int], None],
) -> None:
    """Publish the records, and remember each few hundred once the broker has confirmed them.

    Raises `PublishRefusedError`, or whatever else stops the client; what was remembered until then is not sent twice.
    """
    producer = AIOKafkaProducer(**connection.client_options(), acks="all", request_timeout_ms=int(deadline_s * 1000))
    try:
        await producer.start()
        unconfirmed: list[tuple[Redrive, asyncio.Future[Any]]] = []
        async for each in redrives:
            unconfirmed.append((each, await _send(producer, each)))
            if len(unconfirmed) == _UNCONFIRMED:
                await _confirm(unconfirmed, opened=opened, on_sent=on_sent)
                unconfirmed = []
        await _confirm(unconfirmed, opened=opened, on_sent=on_sent)
    except KafkaError as error:
        if not error.retriable:
            raise PublishRefusedError(f"the broker refuses to take records back: {type(error).__name__}: {error}") from error
        raise
    finally:
        await producer.stop()


async def _send(producer: Any, redrive: Redrive) -> "asyncio.Future[Any]":
    outgoing, partition = redrive.outgoing, redrive.outgoing.partition
    if must_travel_alone(outgoing):
        return await send_alone(producer, outgoing, timestamp_ms=redrive.timestamp_ms)
    sent: asyncio.Future[Any] = await producer.send(
        outgoing.topic,
        value=outgoing.value,
        key=outgoing.key,
        partition=partition and partition % len(await producer.partitions_for(outgoing.topic)),
        timestamp_ms=redrive.timestamp_ms,
        headers=list(outgoing.headers),
    )
    return sent


async def _confirm(
    unconfirmed: Sequence[tuple[Redrive, "asyncio.Future[Any]"]], *, opened: DeadLetterTopic, on_sent: Callable[[int], None]
) -> None:
    await asyncio.gather(*(future for _, future in unconfirmed))
    if unconfirmed:
        await opened.remember([each.letter for each, _ in unconfirmed])
        on_sent(len(unconfirmed))
