"""How far a consumer group is behind its topic, asked from outside the group."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import structlog
from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaError
from aiokafka.structs import TopicPartition

from worker.kafka.connection import BrokerConnection
from worker.kafka.topics import ask_once

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class GroupLag:
    """Records that the group has not committed, by partition; all that are there where it never committed any."""

    by_partition: Mapping[int, int]
    has_committed: bool

    @property
    def total(self) -> int:
        """Return the records of all partitions."""
        return sum(self.by_partition.values())


async def group_lag(connection: BrokerConnection, *, group_id: str, topic: str, timeout_s: float) -> int | None:
    """Return how many records of the topic the group has not committed.

    None when the group never committed any, or the broker refuses or doesn't answer.
    """

    async def ask(admin: Any) -> GroupLag:
        (described,) = await admin.describe_topics([topic])
        partitions = [each["partition"] for each in described["partitions"]]
        return await measure_lag(admin, connection, group_id=group_id, topic=topic, partitions=partitions)

    try:
        lag = await ask_once(connection, ask, timeout_s=timeout_s)
    except (KafkaError, OSError, TimeoutError) as error:
        _log.debug("lag is not known", group=group_id, error=type(error).__name__)
        return None
    return lag.total if lag.has_committed else None


async def measure_lag(
    admin: Any, connection: BrokerConnection, *, group_id: str, topic: str, partitions: Sequence[int]
) -> GroupLag:
    """Return the group's lag. Only offsets are asked for, no record is read. Raises `KafkaError` or `OSError`."""
    asked = [TopicPartition(topic, each) for each in partitions]
    if not asked:
        return GroupLag({}, has_committed=False)
    stored = await admin.list_consumer_group_offsets(group_id, partitions=asked)
    committed = {partition: each.offset for partition, each in stored.items() if each.offset >= 0}
    # Without a subscription it is asked for offsets and fetches nothing.
    consumer = AIOKafkaConsumer(**connection.client_options(), enable_auto_commit=False, isolation_level="read_committed")
    try:
        await consumer.start()
        first, ends = await consumer.beginning_offsets(asked), await consumer.end_offsets(asked)
    finally:
        await consumer.stop()
    waiting = {each.partition: max(0, ends[each] - max(first[each], committed.get(each, 0))) for each in asked}
    return GroupLag(waiting, has_committed=bool(committed))
