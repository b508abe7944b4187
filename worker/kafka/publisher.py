"""Publishes events with a producer of our own, and returns once every one is confirmed."""

import asyncio
from collections.abc import Collection, Sequence
from contextlib import suppress
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaConnectionError, KafkaError, MessageSizeTooLargeError

from worker.core.failures import PublishRefusedError, WorkerError
from worker.core.records import OutgoingRecord
from worker.kafka.connection import BrokerConnection
from worker.kafka.record_batches import must_travel_alone, send_alone
from worker.kafka.topics import DEAD_LETTER_MAX_BYTES, broker_unavailable, find_missing_topics

MAX_BATCH_BYTES = 256 * 1024
_RETRY_S = 1.0


class KafkaPublisher:
    """Owns the producer.

    - `acks="all"`; no idempotence, which in aiokafka can hang a stop and break for good after a failover. Order needs none: one
      batch a partition is in flight at a time.
    - aiokafka retries what is transient for up to the deadline; what fails then, or can never succeed, is raised.
    """

    def __init__(self, connection: BrokerConnection, *, deadline_s: float, client_id: str) -> None:
        self._connection = connection
        self._deadline_s = deadline_s
        self._client_id = client_id
        self._producer: Any = None

    async def start(self) -> None:
        """Connect. Call it from a running event loop. Raises `BrokerUnavailableError`."""
        self._producer = AIOKafkaProducer(
            **self._connection.client_options(),
            client_id=self._client_id,
            acks="all",
            enable_idempotence=False,
            linger_ms=0,  # a poll's events are handed over without a pause: waiting for more would only wait
            max_batch_size=MAX_BATCH_BYTES,
            max_request_size=DEAD_LETTER_MAX_BYTES,
            request_timeout_ms=int(self._deadline_s * 1000),
            retry_backoff_ms=500,
        )
        try:
            async with asyncio.timeout(self._deadline_s):
                await connect(self._producer)
        except (KafkaError, TimeoutError) as error:
            raise broker_unavailable(self._connection, deadline_s=self._deadline_s, error=error) from error

    async def stop(self) -> None:
        """Disconnect; gives up on unconfirmed events after a second, as nothing of theirs was committed."""
        if self._producer is not None:
            producer, self._producer = self._producer, None
            with suppress(TimeoutError):
                async with asyncio.timeout(1.0):
                    await producer.stop()

    async def publish(self, outgoing: Sequence[OutgoingRecord]) -> None:
        """Publish in the given order and wait until the broker has confirmed every event.

        Raises `BrokerUnavailableError` when that takes longer than the deadline, or `TopicsMissingError` when a topic is gone,
        `PublishRefusedError` when the broker refuses an event for good. Some events may then be published all the same: their
        repeats carry the same ids.
        """
        try:
            async with asyncio.timeout(self._deadline_s):
                await send_and_confirm(self._producer, outgoing)
        except (KafkaError, TimeoutError) as error:
            topics = {each.topic for each in outgoing}
            raise await publish_failure(self._connection, topics, deadline_s=self._deadline_s, error=error) from error


async def connect(producer: Any) -> None:
    """Start a producer as soon as a broker answers; bound it from outside."""
    while True:
        try:
            await producer.start()
        except KafkaConnectionError:
            await asyncio.sleep(_RETRY_S)
        else:
            return


async def send_and_confirm(producer: Any, outgoing: Sequence[OutgoingRecord], *, is_transactional: bool = False) -> None:
    """Send in the given order with a producer and wait until the broker has confirmed every record."""
    unconfirmed: list[asyncio.Future[Any]] = []
    try:
        for each in outgoing:
            unconfirmed.append(await _send(producer, each, is_transactional=is_transactional))
        for future in unconfirmed:
            await future
    except BaseException:
        for future in unconfirmed:
            # Marks the exception as seen: it is this one's consequence.
            future.add_done_callback(lambda done: done.cancelled() or done.exception())
        raise


async def publish_failure(
    connection: BrokerConnection, topics: Collection[str], *, deadline_s: float, error: BaseException
) -> WorkerError:
    """Return the failure that says why events could not be published, and what to change."""
    if isinstance(error, MessageSizeTooLargeError):
        return PublishRefusedError(
            f"the broker refuses an event as too large ({error}). Give the dead-letter topic a max.message.bytes "
            f"of at least {DEAD_LETTER_MAX_BYTES}, as `python -m worker topics create` does."
        )
    if isinstance(error, KafkaError) and not error.retriable:
        return PublishRefusedError(f"the broker refuses to take events: {type(error).__name__}: {error}")
    if missing := await find_missing_topics(connection, topics):
        return missing
    return broker_unavailable(connection, deadline_s=deadline_s, error=error)


async def _send(producer: Any, outgoing: OutgoingRecord, *, is_transactional: bool) -> asyncio.Future[Any]:
    if must_travel_alone(outgoing):
        return await send_alone(producer, outgoing, is_transactional=is_transactional)
    partition = outgoing.partition
    if partition is not None:
        partition %= len(await producer.partitions_for(outgoing.topic))
    sent: asyncio.Future[Any] = await producer.send(
        outgoing.topic, value=outgoing.value, key=outgoing.key, partition=partition, headers=list(outgoing.headers)
    )
    return sent
