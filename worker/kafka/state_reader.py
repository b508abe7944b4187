"""Reads back, from the emotions topic, what the escalation policy remembered of the chats of newly assigned partitions."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

import structlog
from aiokafka import AIOKafkaConsumer
from aiokafka import TopicPartition as KafkaTopicPartition
from aiokafka.errors import IllegalStateError, KafkaError

from worker.core.escalation_states import EscalationStates
from worker.core.failures import BrokerUnavailableError
from worker.core.label_state import published_label
from worker.core.recall import PartitionRecall
from worker.core.records import TopicNames, TopicPartition
from worker.kafka.connection import BrokerConnection
from worker.kafka.topics import partition_counts

# By how much clocks may differ: a record's timestamp from the clock that its label is published by, and the timestamps of
# one partition's records from their order, both together.
CLOCK_MARGIN_S = 300.0
_FETCH_BYTES = 4 * 1024 * 1024
_POLL_RECORDS = 2000
_POLL_TIMEOUT_MS = 200
_PROGRESS_S = 5.0
_RETRY_S = 1.0

_log = structlog.get_logger(__name__)


class StateReader:
    """Restores the escalation states of input partitions from the labels of their records.

    - A label lies in the partition of the emotions topic that has the number of its input partition, modulo their count.
    - Read is what was published since the policy's horizon before the next record to be processed; only labels of earlier
      records count. What is rebuilt of them is what the worker that published them would go on with.
    """

    def __init__(
        self,
        connection: BrokerConnection,
        names: TopicNames,
        *,
        states: EscalationStates,
        consumer: Callable[[], Any],
        deadline_s: float,
        max_disorder: int,
        now: Callable[[], datetime],
    ) -> None:
        self._connection = connection
        self._names = names
        self._states = states
        self._consumer = consumer
        self._deadline_s = deadline_s
        self._max_disorder = max_disorder
        self._now = now

    async def restore(self, partitions: Collection[TopicPartition]) -> None:
        """Restore the states of partitions that are assigned and paused.

        Raises `BrokerUnavailableError` when nothing could be read for the deadline, or may not be: better no worker than one
        that has forgotten.
        """
        if not partitions:
            return
        started_s = time.monotonic()
        try:
            async with asyncio.timeout(self._deadline_s) as deadline:
                recalled = await self._recall_in_the_end(partitions, deadline)
        except IllegalStateError:
            raise  # revoked in the meantime: no failure
        except (KafkaError, OSError, TimeoutError) as error:
            raise BrokerUnavailableError(
                f"what is remembered of the chats could not be read from {self._names.emotions} on {self._connection}: no "
                f"progress for {self._deadline_s:g} s ({type(error).__name__}: {error}). Let the worker read that topic, start "
                "its brokers, or raise RUGO_BROKER_DEADLINE_S."
            ) from error
        for partition, recall in recalled.items():
            chats = recall.chats()
            self._states.restore(partition, chats)
            _log.info(
                "chats remembered",
                partition=partition.partition,
                labels=recall.labels,
                repeats=recall.repeats,
                chats=len(chats),
                seconds=round(time.monotonic() - started_s, 2),
            )

    async def _recall_in_the_end(
        self, partitions: Collection[TopicPartition], deadline: asyncio.Timeout
    ) -> dict[TopicPartition, PartitionRecall]:
        while True:
            try:
                return await self._recall(partitions, deadline)
            except (KafkaError, OSError, TimeoutError) as error:
                if isinstance(error, KafkaError) and not error.retriable:
                    raise
                # A broker that has just come back knows of no other for a moment. What was read is read anew.
                _log.warning("reading back failed, trying again", error=type(error).__name__)
            await asyncio.sleep(_RETRY_S)

    async def _recall(
        self, partitions: Collection[TopicPartition], deadline: asyncio.Timeout
    ) -> dict[TopicPartition, PartitionRecall]:
        group = self._consumer()
        next_offsets = {each: await group.position(KafkaTopicPartition(*each)) for each in partitions}
        counts = await partition_counts(
            self._connection, [self._names.input, self._names.emotions], request_timeout_s=self._deadline_s
        )
        self._warn_of_shared_partitions(counts)
        recalls = {
            each: PartitionRecall(self._states.policy, next_offset=offset, max_disorder=self._max_disorder)
            for each, offset in next_offsets.items()
        }
        async with self._reader("read_committed") as reader, self._reader("read_uncommitted") as watcher:
            since_ms = await self._since_ms(reader, next_offsets, emotions_partitions=counts[self._names.emotions])
            # To the very end, not the end of what is committed: a transaction that is open on a shared partition hides what
            # was committed behind it, so its end is waited for.
            ends = await watcher.end_offsets(list(since_ms))
            await _Reading(recalls, reader, ends).read(since_ms, on_progress=lambda: _extend(deadline, self._deadline_s))
        return recalls

    @asynccontextmanager
    async def _reader(self, isolation_level: str) -> AsyncIterator[Any]:
        reader = AIOKafkaConsumer(
            **self._connection.client_options(),
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            isolation_level=isolation_level,
            max_partition_fetch_bytes=_FETCH_BYTES,
            fetch_max_wait_ms=_POLL_TIMEOUT_MS,
        )
        try:
            await reader.start()
            yield reader
        finally:
            await reader.stop()

    async def _since_ms(
        self, reader: Any, next_offsets: Mapping[TopicPartition, int], *, emotions_partitions: int
    ) -> dict[KafkaTopicPartition, int]:
        """Return since when, in milliseconds, each partition of the emotions topic has to be read."""
        now_ms = int(self._now().timestamp() * 1000)
        resumes_ms = await _next_timestamps(reader, next_offsets)
        back_ms = int((self._states.policy.horizon_s + CLOCK_MARGIN_S) * 1000)
        starts: dict[KafkaTopicPartition, int] = {}
        for partition in next_offsets:
            labels = KafkaTopicPartition(self._names.emotions, partition.partition % emotions_partitions)
            since_ms = max(0, min(now_ms, resumes_ms.get(partition, now_ms)) - back_ms)
            starts[labels] = min(since_ms, starts.get(labels, since_ms))
        return starts

    def _warn_of_shared_partitions(self, counts: Mapping[str, int]) -> None:
        asked, has = counts[self._names.input], counts[self._names.emotions]
        if has < asked:
            _log.warning(
                "the emotions topic has fewer partitions than the input topic: a restart reads back more than it needs",
                emotions_partitions=has,
                input_partitions=asked,
            )


class _Reading:
    """One pass over partitions of the emotions topic, from a time on to given ends."""

    def __init__(
        self, recalls: Mapping[TopicPartition, PartitionRecall], reader: Any, ends: Mapping[KafkaTopicPartition, int]
    ) -> None:
        self._recalls = recalls
        self._reader = reader
        self._ends = ends
        self._read = 0
        self._unreadable = 0

    async def read(self, since_ms: Mapping[KafkaTopicPartition, int], *, on_progress: Callable[[], None]) -> None:
        reader, ends = self._reader, self._ends
        found = await reader.offsets_for_times(dict(since_ms))
        first = {each: at.offset for each, at in found.items() if at is not None and at.offset < ends[each]}
        total, said_s = sum(ends[each] - offset for each, offset in first.items()), time.monotonic()
        reader.assign(list(first))
        for partition, offset in first.items():
            reader.seek(partition, offset)
        while unread := [each for each in first if await reader.position(each) < ends[each]]:
            polled = await reader.getmany(*unread, timeout_ms=_POLL_TIMEOUT_MS, max_records=_POLL_RECORDS)
            for records in polled.values():
                self._take(records)
            if polled:
                on_progress()
            if time.monotonic() - said_s > _PROGRESS_S:
                said_s = time.monotonic()
                _log.info("reading back what is remembered of the chats", labels=self._read, of_about=total)
            await asyncio.sleep(0)  # getmany does not give way while records are at hand
        if self._unreadable:
            _log.warning("records of the emotions topic that are no labels were passed over", records=self._unreadable)

    def _take(self, records: list[Any]) -> None:
        for each in records:
            self._read += 1
            try:
                label = published_label(each.headers, each.key, each.value)
                if label is not None and (recall := self._recalls.get(label.answers)):
                    recall.take(label)
            except (ValueError, KeyError, TypeError):
                self._unreadable += 1


async def _next_timestamps(reader: Any, next_offsets: Mapping[TopicPartition, int]) -> dict[TopicPartition, int]:
    """Return the timestamp of the next record of each partition; those where there is none yet are left out."""
    asked = {KafkaTopicPartition(*partition): offset for partition, offset in next_offsets.items()}
    ends = await reader.end_offsets(list(asked))
    reader.assign([each for each, offset in asked.items() if offset < ends[each]])
    for partition in reader.assignment():
        reader.seek(partition, asked[partition])
    found: dict[TopicPartition, int] = {}
    while waiting := [
        each for each in reader.assignment() if TopicPartition(*each) not in found and await reader.position(each) < ends[each]
    ]:
        for partition, records in (await reader.getmany(*waiting, timeout_ms=_POLL_TIMEOUT_MS, max_records=1)).items():
            if records[0].timestamp > 0:
                found[TopicPartition(*partition)] = records[0].timestamp
    return found


def _extend(deadline: asyncio.Timeout, seconds: float) -> None:
    deadline.reschedule(asyncio.get_running_loop().time() + seconds)
