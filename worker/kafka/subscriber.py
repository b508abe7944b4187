"""Reads the input topic with a FastStream batch subscriber that can't lose a record.

FastStream's own parsing and decoding fail a whole poll on one odd record, and its acknowledgement policies then skip or loop
over it. So: a parser and a decoder that only carry records, the manual policy, and a handler that lets nothing escape.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any

import structlog
from faststream import AckPolicy
from faststream.kafka import KafkaBroker, KafkaMessage
from pydantic import SkipValidation, WithJsonSchema

from worker.contracts.inbound import ChatMessage
from worker.core.records import Record
from worker.kafka.rebalance import PollInProgress, RebalanceListener
from worker.kafka.record_batches import read_any_header_key

_log = structlog.get_logger(__name__)

# The AsyncAPI document shows the one message that travels in a record, not the list that the handler gets.
Poll = Annotated[list[Any], SkipValidation, WithJsonSchema(ChatMessage.model_json_schema())]


@dataclass(frozen=True, slots=True)
class SubscriptionSettings:
    """How the input topic is read."""

    topic: str
    group_id: str
    max_poll_records: int
    poll_timeout_ms: int
    fetch_max_wait_ms: int
    session_timeout_ms: int
    rebalance_timeout_ms: int


def subscribe(
    broker: KafkaBroker,
    settings: SubscriptionSettings,
    *,
    process_poll: Callable[[Sequence[Record]], Awaitable[None]],
    polls: PollInProgress,
    listener: RebalanceListener,
    on_failure: Callable[[Exception], None],
) -> Any:
    """Register the handler of the input topic and return the subscriber.

    A poll whose processing raises is not committed, `on_failure` is called, and no later poll is processed: committing past the
    failed one would lose it.
    """
    has_failed = False
    read_any_header_key()

    subscriber = broker.subscriber(
        settings.topic,
        batch=True,
        group_id=settings.group_id,
        max_records=settings.max_poll_records,
        batch_timeout_ms=settings.poll_timeout_ms,
        auto_offset_reset="earliest",
        ack_policy=AckPolicy.MANUAL,
        no_reply=True,
        isolation_level="read_committed",
        parser=_carry_records,
        decoder=_records_of,
        listener=listener,
        session_timeout_ms=settings.session_timeout_ms,
        heartbeat_interval_ms=min(3000, settings.session_timeout_ms // 3),
        rebalance_timeout_ms=settings.rebalance_timeout_ms,
        fetch_max_wait_ms=settings.fetch_max_wait_ms,
        max_partition_fetch_bytes=1024 * 1024,
        title="chat messages",
        description="Every message of every support chat, keyed by chat_id.",
    )

    @subscriber
    async def handle_poll(body: Poll) -> None:
        nonlocal has_failed
        if has_failed:
            return
        async with polls.hold():
            try:
                await process_poll(body)
            except Exception as error:  # noqa: BLE001 - the subscriber boundary: what escapes here, FastStream would swallow
                has_failed = True
                _log.error("poll failed", error=type(error).__name__, records=len(body))
                on_failure(error)

    return subscriber


async def _carry_records(raw: Sequence[Any], original: Callable[[Any], Awaitable[KafkaMessage]]) -> KafkaMessage:
    # Headers are hidden from FastStream: it fails on those that are null or not UTF-8, and would let a producer steer it.
    message = await original(tuple(replace(each, headers=()) for each in raw))
    message.raw_message = raw
    return message


async def _records_of(message: KafkaMessage) -> list[Record]:
    raw: Any = message.raw_message
    return [
        Record(
            topic=each.topic,
            partition=each.partition,
            offset=each.offset,
            timestamp_ms=each.timestamp,
            key=each.key,
            value=each.value,
            headers=tuple(each.headers),
        )
        for each in raw
    ]
