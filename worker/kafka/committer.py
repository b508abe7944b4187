"""Stores next offsets, explicitly and only for partitions that are still ours."""

import asyncio
from collections.abc import Callable, Collection, Sequence
from typing import Any

import structlog
from aiokafka import TopicPartition as KafkaTopicPartition
from aiokafka.errors import CommitFailedError, IllegalStateError, KafkaError

from worker.core.commit_plan import next_offsets
from worker.core.records import Record, TopicPartition
from worker.kafka.connection import BrokerConnection
from worker.kafka.topics import ask_broker, broker_unavailable

_log = structlog.get_logger(__name__)


class KafkaCommitter:
    """Commits with the consumer that polled the records. A refused commit is no failure: the new owner replays the records."""

    def __init__(
        self,
        consumer: Callable[[], Any],
        *,
        connection: BrokerConnection,
        deadline_s: float,
        on_commit_lost: Callable[[], None],
        note: Callable[[TopicPartition], str] = lambda _: "",
    ) -> None:
        self._consumer = consumer
        self._connection = connection
        self._deadline_s = deadline_s
        self._on_commit_lost = on_commit_lost
        self._note = note

    async def commit(self, settled: Sequence[Record]) -> None:
        """Commit the next offsets. Raises `BrokerUnavailableError` when that takes longer than the deadline."""
        consumer = self._consumer()
        owned = {TopicPartition(each.topic, each.partition) for each in consumer.assignment()}
        offsets = next_offsets(settled, owned=owned)
        if not offsets:
            return
        try:
            async with asyncio.timeout(self._deadline_s):
                await consumer.commit(
                    {KafkaTopicPartition(*each): (offset, self._note(each)) for each, offset in offsets.items()}
                )
        except (CommitFailedError, IllegalStateError) as error:
            self._on_commit_lost()
            _log.warning("commit refused: the partitions have moved on", error=type(error).__name__)
        except (KafkaError, TimeoutError) as error:
            raise broker_unavailable(self._connection, deadline_s=self._deadline_s, error=error) from error


async def committed_notes(
    connection: BrokerConnection, partitions: Collection[TopicPartition], *, group_id: str, deadline_s: float
) -> dict[TopicPartition, str]:
    """Return what was stored with the partitions' committed offsets. Raises what `ask_broker` does.

    Where nothing is stored Apache Kafka answers with an empty text, librdkafka's mock cluster with none.
    """
    asked = [KafkaTopicPartition(*each) for each in partitions]
    stored = await ask_broker(
        connection, lambda admin: admin.list_consumer_group_offsets(group_id, partitions=asked), deadline_s=deadline_s
    )
    return {TopicPartition(each.topic, each.partition): at.metadata or "" for each, at in stored.items()}
