"""Stores next offsets, explicitly and only for partitions that are still ours."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import structlog
from aiokafka import TopicPartition as KafkaTopicPartition
from aiokafka.errors import CommitFailedError, IllegalStateError, KafkaError

from worker.core.commit_plan import next_offsets
from worker.core.records import Record, TopicPartition
from worker.kafka.connection import BrokerConnection
from worker.kafka.topics import broker_unavailable

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
    ) -> None:
        self._consumer = consumer
        self._connection = connection
        self._deadline_s = deadline_s
        self._on_commit_lost = on_commit_lost

    async def commit(self, settled: Sequence[Record]) -> None:
        """Commit the next offsets. Raises `BrokerUnavailableError` when that takes longer than the deadline."""
        consumer = self._consumer()
        owned = {TopicPartition(each.topic, each.partition) for each in consumer.assignment()}
        offsets = next_offsets(settled, owned=owned)
        if not offsets:
            return
        try:
            async with asyncio.timeout(self._deadline_s):
                await consumer.commit({KafkaTopicPartition(*partition): offset for partition, offset in offsets.items()})
        except (CommitFailedError, IllegalStateError) as error:
            self._on_commit_lost()
            _log.warning("commit refused: the partitions have moved on", error=type(error).__name__)
        except (KafkaError, TimeoutError) as error:
            raise broker_unavailable(self._connection, deadline_s=self._deadline_s, error=error) from error
