"""What happens when partitions come and go."""

import asyncio
from collections.abc import Callable, Collection
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


class DrainOnRevoke(ConsumerRebalanceListener):
    """Lets the poll in progress be published and committed before its partitions are given away."""

    def __init__(
        self,
        polls: PollInProgress,
        *,
        timeout_s: float,
        on_revoked: Callable[[Collection[TopicPartition]], None],
        on_assigned: Callable[[Collection[TopicPartition]], None],
    ) -> None:
        self._polls = polls
        self._timeout_s = timeout_s
        self._on_revoked = on_revoked
        self._on_assigned = on_assigned

    async def on_partitions_revoked(self, revoked: Collection[Any]) -> None:
        """Wait for the poll in progress, bounded; then forget what belongs to the partitions."""
        if not await self._polls.wait_until_idle(timeout_s=self._timeout_s):
            _log.warning("rebalance did not wait any longer for the poll in progress", timeout_s=self._timeout_s)
        self._on_revoked([TopicPartition(each.topic, each.partition) for each in revoked])

    async def on_partitions_assigned(self, assigned: Collection[Any]) -> None:
        """Note the new partitions."""
        partitions = [TopicPartition(each.topic, each.partition) for each in assigned]
        _log.info("partitions assigned", partitions=[each.partition for each in partitions])
        self._on_assigned(partitions)
