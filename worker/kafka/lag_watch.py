"""Measures how many records of our partitions are not committed yet, by asking the broker.

Asked, not remembered: the consumer knows a partition's end as of its last fetch, and a worker that is stuck does not fetch.
"""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import structlog
from aiokafka.errors import KafkaError

from worker.core.records import TopicPartition

_INTERVAL_S = 10.0

_log = structlog.get_logger(__name__)


class LagWatch:
    """Asks every few seconds and tells what it found; while the broker does not answer, the latest stands."""

    def __init__(self, consumer: Callable[[], Any], *, on_measured: Callable[[Mapping[TopicPartition, int]], None]) -> None:
        self._consumer = consumer
        self._on_measured = on_measured

    async def run(self) -> None:
        """Measure until cancelled."""
        while True:
            try:
                async with asyncio.timeout(_INTERVAL_S):
                    self._on_measured(await consumer_lag(self._consumer()))
            except (KafkaError, TimeoutError) as error:
                _log.debug("lag not measured", error=type(error).__name__)
            await asyncio.sleep(_INTERVAL_S)


async def consumer_lag(consumer: Any) -> dict[TopicPartition, int]:
    """Return each assigned partition's end less its next offset, which before a first commit is its beginning."""
    assigned = sorted(consumer.assignment()) if consumer is not None else []
    if not assigned:
        return {}
    ends = await consumer.end_offsets(assigned)
    committed = dict(zip(assigned, await asyncio.gather(*map(consumer.committed, assigned)), strict=True))
    if fresh := [each for each in assigned if committed[each] is None]:
        committed |= await consumer.beginning_offsets(fresh)
    return {TopicPartition(each.topic, each.partition): max(0, ends[each] - committed[each]) for each in assigned}
