"""Reads the input topic: FastStream makes, starts and stops the consumer, a loop of our own takes polls from it.

FastStream's batch handler takes the next poll only when the last one is settled, sleeps when there was none, and fails a whole
poll on one odd record, which its acknowledgement policies then skip or loop over. Without a handler it does none of that.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import structlog
from aiokafka.errors import (
    ConsumerStoppedError,
    GroupAuthorizationFailedError,
    KafkaError,
    TopicAuthorizationFailedError,
    UnsupportedCodecError,
)
from faststream import AckPolicy
from faststream.kafka import KafkaBroker

from worker.core.failures import WorkerError
from worker.core.records import Record
from worker.kafka.rebalance import RebalanceListener
from worker.kafka.record_batches import read_any_header_key, record_of

_log = structlog.get_logger(__name__)

_WAIT_MS = 1000  # a poll returns as soon as there is a record; without any it is only asked again
_RETRY_S = 1.0
_FINAL = (GroupAuthorizationFailedError, TopicAuthorizationFailedError, UnsupportedCodecError)


@dataclass(frozen=True, slots=True)
class SubscriptionSettings:
    """How the input topic is read."""

    topic: str
    group_id: str
    fetch_max_wait_ms: int
    session_timeout_ms: int
    rebalance_timeout_ms: int


class ReadRefusedError(WorkerError):
    """The broker, or the client library, gives no records any more."""


def subscribe(broker: KafkaBroker, settings: SubscriptionSettings, *, listener: RebalanceListener) -> Any:
    """Register the input topic and return the subscriber, whose `consumer` is there once the broker has started."""
    read_any_header_key()
    return broker.subscriber(
        settings.topic,
        batch=True,
        group_id=settings.group_id,
        auto_offset_reset="earliest",
        ack_policy=AckPolicy.MANUAL,
        isolation_level="read_committed",
        listener=listener,
        session_timeout_ms=settings.session_timeout_ms,
        heartbeat_interval_ms=min(3000, settings.session_timeout_ms // 3),
        rebalance_timeout_ms=settings.rebalance_timeout_ms,
        fetch_max_wait_ms=settings.fetch_max_wait_ms,
        max_partition_fetch_bytes=1024 * 1024,
        include_in_schema=False,  # it has no handler to learn the message's shape from: see channels.py
    )


async def read_polls(
    consumer: Any,
    *,
    max_records: int,
    take: Callable[[Sequence[Record]], Awaitable[None]],
    deadline_s: float,
) -> None:
    """Give one poll after another to `take`, waiting for it, until the consumer is stopped.

    Nothing is awaited between a poll's arrival and `take`: a revocation finds a poll either not read yet or already taken.
    Raises `ReadRefusedError` when reading fails for longer than the deadline, or in a way that time doesn't mend.
    """
    loop = asyncio.get_running_loop()
    failing_since_s: float | None = None
    while True:
        try:
            found = await consumer.getmany(timeout_ms=_WAIT_MS, max_records=max_records)
        except ConsumerStoppedError:
            return
        except KafkaError as error:
            failing_since_s = failing_since_s or loop.time()
            if isinstance(error, _FINAL) or loop.time() - failing_since_s > deadline_s:
                raise _refused(error) from error
            _log.warning("reading failed, trying again", error=type(error).__name__)
            await asyncio.sleep(_RETRY_S)
        else:
            failing_since_s = None
            if found:
                await take([record_of(each) for each in chain(*found.values())])


def _refused(error: KafkaError) -> ReadRefusedError:
    return ReadRefusedError(
        f"the input topic can't be read ({type(error).__name__}: {error}). Check the worker's rights to the topic and to its "
        "group, and the broker's log; for a compression that is not known install its library."
    )
