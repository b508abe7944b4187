"""Notices that the broker is gone while nothing is being published."""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any

import structlog
from aiokafka.errors import KafkaError

from worker.core.failures import WorkerError
from worker.kafka.connection import BrokerConnection
from worker.kafka.rights import Right, missing_rights, rights_refused
from worker.kafka.topics import ask_once, why_unavailable

_log = structlog.get_logger(__name__)


class BrokerWatch:
    """Asks the broker every few seconds what the worker may do. `is_reachable` says whether it answered last."""

    def __init__(self, connection: BrokerConnection, *, deadline_s: float, rights: Sequence[Right] = ()) -> None:
        self.is_reachable = False
        self._connection = connection
        self._deadline_s = deadline_s
        self._rights = rights
        self._interval_s = min(5.0, deadline_s / 4)

    async def run(self, on_gone: Callable[[WorkerError], None]) -> None:
        """Watch until cancelled; call `on_gone` once: when the broker was silent for the deadline, or took a right away."""
        last_answer_s, missing = time.monotonic(), frozenset[Right]()
        while True:
            try:
                missing_before, missing = missing, await self._missing_rights()
                self.is_reachable, last_answer_s = True, time.monotonic()
                if lasting := missing & missing_before:
                    on_gone(rights_refused(sorted(lasting), self._connection))
                    return
            except (KafkaError, OSError, TimeoutError) as error:
                self.is_reachable = False
                silent_s = time.monotonic() - last_answer_s
                _log.warning("broker does not answer", silent_s=round(silent_s, 1), error=type(error).__name__)
                if silent_s >= self._deadline_s:
                    on_gone(await why_unavailable(self._connection, deadline_s=self._deadline_s, error=error))
                    return
            await asyncio.sleep(self._interval_s)

    async def _missing_rights(self) -> frozenset[Right]:
        ask = ask_once(self._connection, self._ask_for_rights, timeout_s=max(1.0, self._interval_s))
        return frozenset(await ask)

    async def _ask_for_rights(self, admin: Any) -> list[Right]:
        return await missing_rights(admin, self._rights)
