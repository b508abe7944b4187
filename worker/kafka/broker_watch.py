"""Notices that the broker is gone while nothing is being published."""

import asyncio
import time
from collections.abc import Callable

import structlog
from aiokafka.errors import KafkaError

from worker.core.failures import WorkerError
from worker.kafka.connection import BrokerConnection
from worker.kafka.topics import broker_unavailable, existing_topics

_log = structlog.get_logger(__name__)


class BrokerWatch:
    """Asks the broker for its topics every few seconds. `is_reachable` is the latest answer."""

    def __init__(self, connection: BrokerConnection, *, deadline_s: float) -> None:
        self.is_reachable = False
        self._connection = connection
        self._deadline_s = deadline_s
        self._interval_s = min(5.0, deadline_s / 4)

    async def run(self, on_gone: Callable[[WorkerError], None]) -> None:
        """Watch until cancelled; call `on_gone` once, when the broker has not answered for the deadline."""
        last_answer_s = time.monotonic()
        while True:
            try:
                await existing_topics(self._connection, request_timeout_s=max(1.0, self._interval_s))
                self.is_reachable, last_answer_s = True, time.monotonic()
            except (KafkaError, OSError, TimeoutError) as error:
                self.is_reachable = False
                silent_s = time.monotonic() - last_answer_s
                _log.warning("broker does not answer", silent_s=round(silent_s, 1), error=type(error).__name__)
                if silent_s >= self._deadline_s:
                    on_gone(broker_unavailable(self._connection, deadline_s=self._deadline_s, error=error))
                    return
            await asyncio.sleep(self._interval_s)
