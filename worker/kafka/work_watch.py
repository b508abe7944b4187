"""Watches whether there is work for this worker: records that wait for it, or none because its group is full."""

import asyncio
from collections.abc import Callable
from typing import Any

import structlog
from aiokafka.errors import KafkaError, UnknownTopicOrPartitionError

from worker.kafka.connection import BrokerConnection
from worker.kafka.topics import ask_once

_INTERVAL_S = 2.0
_TIMEOUT_S = 5.0

_log = structlog.get_logger(__name__)


class WorkWatch:
    """Looks every two seconds and tells what it found.

    - `on_looked` gets whether records wait: polls are in flight, or partitions that aren't paused have records that were not
      read. It is asked of the broker, as a consumer that is stuck would not know.
    - `on_spare` gets whether this worker has no partition because the group has more members than there are partitions.
    """

    def __init__(
        self,
        connection: BrokerConnection,
        *,
        topic: str,
        group_id: str,
        client_id: str,
        consumer: Callable[[], Any],
        polls_in_flight: Callable[[], int],
        assigned_partitions: Callable[[], int],
        is_broker_reachable: Callable[[], bool],
        on_looked: Callable[[bool], None],
        on_moved: Callable[[], None],
        on_spare: Callable[[bool], None],
    ) -> None:
        self._connection = connection
        self._topic = topic
        self._group_id = group_id
        self._client_id = client_id
        self._consumer = consumer
        self._polls_in_flight = polls_in_flight
        self._assigned_partitions = assigned_partitions
        self._is_broker_reachable = is_broker_reachable
        self._on_looked = on_looked
        self._on_moved = on_moved
        self._on_spare = on_spare
        self._positions: dict[Any, int] = {}

    async def run(self) -> None:
        """Watch until cancelled."""
        while True:
            await self._look()
            await asyncio.sleep(_INTERVAL_S)

    async def _look(self) -> None:
        if not self._is_broker_reachable():
            self._on_looked(False)  # whoever waits for the broker has a deadline of its own
            return
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                if self._assigned_partitions():
                    self._on_spare(False)
                    self._on_looked(self._polls_in_flight() > 0 or await self._has_unread())
                else:
                    self._on_looked(False)
                    self._on_spare(await self._is_spare())
        except (KafkaError, OSError, TimeoutError) as error:
            _log.debug("work not looked at", error=type(error).__name__)
            # The broker answers others but not our consumer: records may wait, and nobody will read them.
            self._on_looked(self._assigned_partitions() > 0)

    async def _has_unread(self) -> bool:
        consumer = self._consumer()
        flowing = sorted(consumer.assignment() - consumer.paused())
        if not flowing:
            return False
        ends = await consumer.end_offsets(flowing)
        positions = {each: await consumer.position(each) for each in flowing}
        if positions != self._positions:
            self._positions = positions
            self._on_moved()  # records that are skipped, of transactions that were aborted, are never settled
        return any(positions[each] < ends[each] for each in flowing)

    async def _is_spare(self) -> bool:
        return await ask_once(self._connection, self._ask_whether_spare, timeout_s=_TIMEOUT_S)

    async def _ask_whether_spare(self, admin: Any) -> bool:
        [topic] = await admin.describe_topics([self._topic])
        if topic["error_code"] == UnknownTopicOrPartitionError.errno:
            return False
        [described] = await admin.describe_consumer_groups([self._group_id])
        [group] = described.to_object()["groups"]
        members = [each["client_id"] for each in group["members"]]
        return group["state"] == "Stable" and self._client_id in members and len(members) > len(topic["partitions"])
