"""What happens when partitions come and go."""

import asyncio
from collections.abc import Awaitable, Callable, Collection
from typing import Any

import structlog
from aiokafka.abc import ConsumerRebalanceListener
from aiokafka.errors import IllegalStateError

from worker.core.records import TopicPartition
from worker.kafka.polls_in_flight import PollsInFlight

_log = structlog.get_logger(__name__)


class RebalanceListener(ConsumerRebalanceListener):
    """Makes partitions ready before their records flow, and lets the polls in flight be settled before they are given away.

    - Records of new partitions wait, paused, until `prepare` and then `restore` are through. Both run beside the group's
      heartbeats, so they may take their time; a revocation cancels them.
    - A failure of either is given to `on_failure`, and the partitions stay paused.
    - `release` undoes `prepare`, once nothing of the partitions is in flight any more.
    """

    def __init__(
        self,
        polls: PollsInFlight[Any],
        *,
        consumer: Callable[[], Any],
        timeout_s: float,
        on_revoked: Callable[[Collection[TopicPartition]], None],
        on_assigned: Callable[[Collection[TopicPartition]], None],
        prepare: Callable[[Collection[TopicPartition]], Awaitable[None]],
        release: Callable[[], Awaitable[None]],
        restore: Callable[[Collection[TopicPartition]], Awaitable[None]],
        on_failure: Callable[[Exception], None],
    ) -> None:
        self._polls = polls
        self._consumer = consumer
        self._timeout_s = timeout_s
        self._on_revoked = on_revoked
        self._on_assigned = on_assigned
        self._prepare = prepare
        self._release = release
        self._restore = restore
        self._on_failure = on_failure
        self._getting_ready: asyncio.Task[None] | None = None

    async def on_partitions_revoked(self, revoked: Collection[Any]) -> None:
        """Let what is in flight be settled, within bounds, and drop the rest; then forget what belongs to the partitions."""
        await self._stop_getting_ready()
        if not await self._polls.wait_until_idle(timeout_s=self._timeout_s):
            _log.warning("rebalance drops polls: they took too long", polls=len(self._polls), timeout_s=self._timeout_s)
            await self._polls.drop()
        await self._release()
        self._on_revoked(_partitions_of(revoked))

    async def on_partitions_assigned(self, assigned: Collection[Any]) -> None:
        """Note the new partitions and begin to make them ready."""
        self._consumer().pause(*assigned)  # first of all: nothing else holds their records back
        partitions = _partitions_of(assigned)
        _log.info("partitions assigned", partitions=sorted(each.partition for each in partitions))
        self._on_assigned(partitions)
        await self._stop_getting_ready()
        self._getting_ready = asyncio.create_task(self._get_ready(assigned))

    async def stop(self) -> None:
        """Give up on partitions that are not ready yet: no revocation tells of a stop."""
        await self._stop_getting_ready()

    async def _get_ready(self, assigned: Collection[Any]) -> None:
        partitions = _partitions_of(assigned)
        try:
            await self._prepare(partitions)
            await self._restore(partitions)
            self._consumer().resume(*assigned)
            _log.info("partitions ready", partitions=sorted(each.partition for each in partitions))
        except IllegalStateError:
            _log.info("partitions moved on before they were ready")
        except Exception as error:  # noqa: BLE001 - the boundary of a task of its own: nobody else would hear of it
            self._on_failure(error)

    async def _stop_getting_ready(self) -> None:
        if self._getting_ready is not None:
            self._getting_ready.cancel()
            await asyncio.wait([self._getting_ready])


def _partitions_of(found: Collection[Any]) -> list[TopicPartition]:
    return [TopicPartition(each.topic, each.partition) for each in found]
