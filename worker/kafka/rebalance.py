"""What happens when partitions come and go."""

import asyncio
from collections.abc import Awaitable, Callable, Collection
from contextlib import asynccontextmanager, suppress
from typing import Any

import structlog
from aiokafka.abc import ConsumerRebalanceListener

from worker.core.records import TopicPartition

_log = structlog.get_logger(__name__)


class PollInProgress:
    """Whether a poll is being processed; lets a rebalance wait for it."""

    def __init__(self) -> None:
        self._idle = asyncio.Event()
        self._idle.set()

    @asynccontextmanager
    async def hold(self) -> Any:
        """Mark a poll as in progress for the duration."""
        self._idle.clear()
        try:
            yield
        finally:
            self._idle.set()

    async def wait_until_idle(self, *, timeout_s: float) -> bool:
        """Return whether no poll was in progress before the time was up."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._idle.wait()
        return self._idle.is_set()


class RebalanceListener(ConsumerRebalanceListener):
    """Makes partitions ready before their records flow, and lets the poll in progress be settled before they are given away.

    - Records of new partitions wait, paused, until `prepare` and then `restore` are through. Both run beside the group's
      heartbeats, so they may take their time; a revocation cancels them.
    - A failure of either is given to `on_failure`, and the partitions stay paused.
    """

    def __init__(
        self,
        polls: PollInProgress,
        *,
        consumer: Callable[[], Any],
        timeout_s: float,
        on_revoked: Callable[[Collection[TopicPartition]], None],
        on_assigned: Callable[[Collection[TopicPartition]], None],
        prepare: Callable[[Collection[TopicPartition]], Awaitable[None]],
        restore: Callable[[Collection[TopicPartition]], Awaitable[None]],
        on_failure: Callable[[Exception], None],
    ) -> None:
        self._polls = polls
        self._consumer = consumer
        self._timeout_s = timeout_s
        self._on_revoked = on_revoked
        self._on_assigned = on_assigned
        self._prepare = prepare
        self._restore = restore
        self._on_failure = on_failure
        self._getting_ready: asyncio.Task[None] | None = None

    async def on_partitions_revoked(self, revoked: Collection[Any]) -> None:
        """Wait for the poll in progress, bounded; then forget what belongs to the partitions."""
        await self._stop_getting_ready()
        if not await self._polls.wait_until_idle(timeout_s=self._timeout_s):
            _log.warning("rebalance did not wait any longer for the poll in progress", timeout_s=self._timeout_s)
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
        except Exception as error:  # noqa: BLE001 - the boundary of a task of its own: nobody else would hear of it
            self._on_failure(error)

    async def _stop_getting_ready(self) -> None:
        if self._getting_ready is not None:
            self._getting_ready.cancel()
            await asyncio.wait([self._getting_ready])


def _partitions_of(found: Collection[Any]) -> list[TopicPartition]:
    return [TopicPartition(each.topic, each.partition) for each in found]
