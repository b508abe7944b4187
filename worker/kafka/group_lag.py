"""How far a consumer group is behind its topic, asked from outside the group."""

import asyncio

import structlog
from aiokafka import AIOKafkaConsumer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError
from aiokafka.structs import TopicPartition

from worker.kafka.connection import BrokerConnection

_log = structlog.get_logger(__name__)


async def group_lag(connection: BrokerConnection, *, group_id: str, topic: str, timeout_s: float) -> int | None:
    """Return how many records of the topic the group has not committed.

    None when the group never committed any, or the broker refuses or doesn't answer. Only offsets are asked for, no record is
    read.
    """
    try:
        return await _ask_for_lag(connection, group_id=group_id, topic=topic, timeout_s=timeout_s)
    except (KafkaError, OSError, TimeoutError) as error:
        _log.debug("lag is not known", group=group_id, error=type(error).__name__)
        return None


async def _ask_for_lag(connection: BrokerConnection, *, group_id: str, topic: str, timeout_s: float) -> int | None:
    admin = AIOKafkaAdminClient(**connection.client_options(), request_timeout_ms=int(timeout_s * 1000))
    # Without a subscription it is asked for offsets and fetches nothing.
    consumer = AIOKafkaConsumer(**connection.client_options(), enable_auto_commit=False)
    try:
        async with asyncio.timeout(timeout_s):
            await admin.start()
            (described,) = await admin.describe_topics([topic])
            partitions = [TopicPartition(topic, each["partition"]) for each in described["partitions"]]
            if not partitions:
                return None
            stored = await admin.list_consumer_group_offsets(group_id, partitions=partitions)
            committed = {partition: each.offset for partition, each in stored.items() if each.offset >= 0}
            if not committed:
                return None
            await consumer.start()
            first, ends = await consumer.beginning_offsets(partitions), await consumer.end_offsets(partitions)
            return sum(max(0, ends[each] - max(first[each], committed.get(each, 0))) for each in partitions)
    finally:
        await consumer.stop()
        await admin.close()
