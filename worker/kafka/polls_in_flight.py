"""Lets several polls be on their way at once, and still settles them one by one, in the order in which they were taken."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Generic, TypeVar

import structlog

from worker.core.records import Record

_log = structlog.get_logger(__name__)

# One is being settled, one is on the model, one waits for the model: it never waits for us. More would only take memory.
MAX_POLLS_IN_FLIGHT = 3

Scored = TypeVar("Scored")


class PollsInFlight(Generic[Scored]):
    """The polls that were taken and are not settled yet.

    - `score` runs for several polls at a time, `settle` for one, in the order of `take`.
    - After a failure `on_failure` is called, once, and nothing that was taken later is settled.
    - What `drop` finds in flight is never settled; nothing of it is left when `drop` returns.
    """

    def __init__(
        self,
        score: Callable[[Sequence[Record]], Awaitable[Scored]],
        settle: Callable[[Scored], Awaitable[None]],
        *,
        on_failure: Callable[[Exception], None],
        limit: int = MAX_POLLS_IN_FLIGHT,
    ) -> None:
        self._score = score
        self._settle = settle
        self._on_failure = on_failure
        self._limit = limit
        self._journeys: set[asyncio.Task[None]] = set()
        self._latest: asyncio.Task[None] | None = None
        self._has_failed = False

    def __len__(self) -> int:
        return len(self._journeys)

    async def take(self, records: Sequence[Record]) -> None:
        """Set a poll on its way and return once there is room for another. Call it again only then."""
        self._latest = journey = asyncio.create_task(self._travel(records, behind=self._latest))
        self._journeys.add(journey)
        journey.add_done_callback(self._journeys.discard)
        while len(self._journeys) >= self._limit:
            await asyncio.wait(self._journeys, return_when=asyncio.FIRST_COMPLETED)

    async def wait_until_idle(self, *, timeout_s: float) -> bool:
        """Return whether nothing was in flight any more before the time was up."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while self._journeys:
                    await asyncio.wait(self._journeys)
        return not self._journeys

    async def drop(self) -> None:
        """Cut short what is in flight. Events of it may have been published, but nothing of it is committed from now on."""
        dropped = list(self._journeys)
        for journey in dropped:
            journey.cancel()
        if dropped:
            await asyncio.wait(dropped)
        self._latest = None

    async def _travel(self, records: Sequence[Record], *, behind: asyncio.Task[None] | None) -> None:
        try:
            try:
                scored = await self._score(records)
            finally:
                if behind is not None:
                    await asyncio.wait([behind])  # a failure waits its turn too: what was taken earlier is still good
            if not self._has_failed:
                await self._settle(scored)
        except Exception as error:  # noqa: BLE001 - the boundary of a poll's task: what escapes here, nobody would hear of
            _log.error("poll failed", error=type(error).__name__, records=len(records))
            if not self._has_failed:
                self._has_failed = True
                self._on_failure(error)
