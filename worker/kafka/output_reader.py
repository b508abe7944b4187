"""Reads topics from some time ago to their ends and on, without a group: for a process that only watches.

Nothing is committed, so any number of watchers can read; a restart reads the same time span again.
"""

import asyncio
from collections.abc import Callable, Collection, Sequence
from typing import Any, Literal

import structlog
from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaError
from aiokafka.structs import TopicPartition

from worker.core.records import Record
from worker.kafka.connection import BrokerConnection
from worker.kafka.record_batches import record_of
from worker.kafka.topics import partition_counts

FeedState = Literal["connecting", "topics_missing", "catching_up", "live", "broker_down"]

_RETRY_S = 2.0
_PROBE_S = 3.0
_PROBE_TIMEOUT_S = 5.0
_NEW_PARTITIONS_S = 30.0
_POLL_TIMEOUT_MS = 200
_MAX_POLL_RECORDS = 1000

_log = structlog.get_logger(__name__)


class OutputReader:
    """Reads every partition of some topics, those added later too, and says how that goes.

    - `on_records` gets the records of one partition in their order; partitions come side by side.
    - `on_state` gets a `FeedState` and, for `topics_missing`, which, whenever it changes.
    - A broker that goes away is waited for without end; reading resumes where it stopped.
    """

    def __init__(
        self,
        connection: BrokerConnection,
        topics: Collection[str],
        *,
        since_ms: int,
        on_records: Callable[[Sequence[Record]], None],
        on_state: Callable[[FeedState, tuple[str, ...]], None],
        fetch_max_wait_ms: int = 100,
    ) -> None:
        self._connection = connection
        self._topics = tuple(topics)
        self._since_ms = since_ms
        self._on_records = on_records
        self._on_state = on_state
        self._fetch_max_wait_ms = fetch_max_wait_ms
        self._next_offsets: dict[TopicPartition, int] = {}
        self._first_ends: dict[TopicPartition, int] = {}
        self._state: tuple[FeedState, tuple[str, ...]] = ("connecting", ())

    async def run(self) -> None:
        """Read until cancelled."""
        while True:
            try:
                await self._read_while_it_answers()
            except (KafkaError, OSError, TimeoutError) as error:
                _log.warning("broker does not answer", error=type(error).__name__)
                self._tell("broker_down")
            await asyncio.sleep(_RETRY_S)

    async def _read_while_it_answers(self) -> None:
        consumer = AIOKafkaConsumer(
            **self._connection.client_options(),
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            isolation_level="read_committed",
            fetch_max_wait_ms=self._fetch_max_wait_ms,
        )
        clock = asyncio.get_running_loop().time
        try:
            async with asyncio.timeout(_PROBE_TIMEOUT_S):
                await consumer.start()
            probe_at_s = follow_at_s = 0.0
            while True:
                if clock() >= follow_at_s:
                    follow_at_s = clock() + (_NEW_PARTITIONS_S if await self._follow_partitions(consumer) else _RETRY_S)
                if clock() >= probe_at_s and consumer.assignment():
                    async with asyncio.timeout(_PROBE_TIMEOUT_S):
                        await consumer.end_offsets(list(consumer.assignment()))
                    probe_at_s = clock() + _PROBE_S
                await self._take_poll(consumer)
        finally:
            # As a task: where a fetch was cut off, aiokafka's stop ends in a cancellation that would be taken for ours.
            await asyncio.wait([asyncio.create_task(consumer.stop())], timeout=_PROBE_TIMEOUT_S)

    async def _follow_partitions(self, consumer: Any) -> bool:
        """Assign what there is to read; return whether every topic exists."""
        counts = await partition_counts(self._connection, self._topics, request_timeout_s=_PROBE_TIMEOUT_S)
        missing = tuple(topic for topic in self._topics if not counts.get(topic))
        wanted = {TopicPartition(topic, each) for topic in self._topics for each in range(counts.get(topic, 0))}
        if wanted and wanted != consumer.assignment():
            await self._assign(consumer, wanted)
        if missing:
            self._tell("topics_missing", missing)
        elif self._state[0] != "live":
            self._tell("catching_up")
        return not missing

    async def _assign(self, consumer: Any, wanted: set[TopicPartition]) -> None:
        consumer.assign(list(wanted))
        unread = wanted - self._next_offsets.keys()
        async with asyncio.timeout(4 * _PROBE_TIMEOUT_S):
            ends = await consumer.end_offsets(list(wanted))
            found = await consumer.offsets_for_times(dict.fromkeys(unread, self._since_ms)) if unread else {}
        for each in unread:
            self._next_offsets[each] = found[each].offset if found.get(each) else ends[each]
        self._first_ends |= {each: ends[each] for each in wanted}
        for each in wanted:
            consumer.seek(each, self._next_offsets[each])

    async def _take_poll(self, consumer: Any) -> None:
        if not consumer.assignment():
            await asyncio.sleep(_POLL_TIMEOUT_MS / 1000)
            return
        polled = await consumer.getmany(timeout_ms=_POLL_TIMEOUT_MS, max_records=_MAX_POLL_RECORDS)
        for partition, raw in polled.items():
            self._on_records([record_of(each) for each in raw])
            self._next_offsets[partition] = raw[-1].offset + 1
            await asyncio.sleep(0)  # the page is served between partitions
        if self._state[0] == "catching_up" and await self._has_caught_up(consumer):
            self._tell("live")

    async def _has_caught_up(self, consumer: Any) -> bool:
        for partition, end in self._first_ends.items():
            if partition in consumer.assignment() and await consumer.position(partition) < end:
                return False
        return True

    def _tell(self, state: FeedState, topics: tuple[str, ...] = ()) -> None:
        if (state, topics) != self._state:
            self._state = (state, topics)
            self._on_state(state, topics)
