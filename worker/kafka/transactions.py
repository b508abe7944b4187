"""Exactly-once delivery: what a poll brings of one input partition, and that partition's next offset, in one transaction.

A reader of committed records sees both or neither. aiokafka commits offsets in a transaction without the group's generation, so
a worker that was taken for dead could commit over its successor: a producer for each input partition, with an id that only the
partition's owner uses, lets the broker refuse it.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from typing import Any

import structlog
from aiokafka import AIOKafkaProducer
from aiokafka import TopicPartition as KafkaTopicPartition
from aiokafka.errors import IllegalOperation, IllegalStateError, KafkaError, ProducerFenced, TransactionalIdAuthorizationFailed

from worker.core.commit_plan import next_offsets
from worker.core.failures import AccessRefusedError, WorkerError
from worker.core.records import Outcome, OutgoingRecord, Record, TopicPartition
from worker.kafka.connection import BrokerConnection
from worker.kafka.publisher import MAX_BATCH_BYTES, connect, publish_failure, send_and_confirm
from worker.kafka.topics import DEAD_LETTER_MAX_BYTES

_CLOSE_S = 2.0

_log = structlog.get_logger(__name__)


class FencedOutError(WorkerError):
    """Another producer took over a partition that the group still gives to this worker."""


class ExactlyOnce:
    """Owns a transactional producer for each assigned input partition.

    - `prepare` starts them: that ends what the partitions' last owners left open and bars them from going on. Reading resumes
      behind what they committed.
    - A producer that another one barred has lost its partition: what is made of it is dropped until it is assigned anew.
    - A producer is not used again after a failure: aiokafka's would be out of sequence for good.
    """

    def __init__(
        self,
        connection: BrokerConnection,
        *,
        group_id: str,
        client_id: str,
        consumer: Callable[[], Any],
        deadline_s: float,
        session_timeout_s: float,
        on_lost: Callable[[], None],
        on_failure: Callable[[Exception], None],
        note: Callable[[TopicPartition], str] = lambda _: "",
    ) -> None:
        self._connection = connection
        self._group_id = group_id
        self._client_id = client_id
        self._consumer = consumer
        self._deadline_s = deadline_s
        self._session_timeout_s = session_timeout_s
        self._on_lost = on_lost
        self._on_failure = on_failure
        self._note = note
        self._producers: dict[TopicPartition, Any] = {}
        self._lost: dict[TopicPartition, asyncio.TimerHandle] = {}

    async def start(self) -> None:
        """Do nothing: producers begin with their partitions."""

    async def stop(self) -> None:
        """Disconnect."""
        await self.release()

    async def prepare(self, partitions: Collection[TopicPartition]) -> None:
        """Take the partitions over from their last owners; they are assigned and paused. Raises `WorkerError`."""
        await self.release()
        try:
            async with asyncio.timeout(self._deadline_s), asyncio.TaskGroup() as starting:
                for partition in partitions:
                    producer = self._producers[partition] = self._producer_of(partition)
                    starting.create_task(connect(producer))
        except (ExceptionGroup, TimeoutError) as error:
            raise await self._failure(error.exceptions[0] if isinstance(error, ExceptionGroup) else error) from error
        try:
            async with asyncio.timeout(self._deadline_s):
                # What was committed may have been asked before the last owner was barred.
                await self._consumer().seek_to_committed(*(KafkaTopicPartition(*each) for each in partitions))
        except IllegalStateError:
            raise  # revoked in the meantime: no failure
        except (KafkaError, TimeoutError) as error:
            raise await self._failure(error) from error

    async def release(self) -> None:
        """Stop the producers, within bounds: the partitions are being given away, or the worker ends."""
        for timer in self._lost.values():
            timer.cancel()
        self._lost.clear()
        producers = list(self._producers.values())
        self._producers.clear()
        await asyncio.gather(*map(_stop, producers))

    async def publish(self, outcomes: Sequence[Outcome]) -> Collection[TopicPartition]:
        """Publish and commit, a transaction a partition beside each other; return the partitions that were lost."""
        by_partition: defaultdict[TopicPartition, list[Outcome]] = defaultdict(list)
        for outcome in outcomes:
            by_partition[outcome.record.topic_partition].append(outcome)
        ended = await asyncio.gather(*(self._transact(*each) for each in by_partition.items()), return_exceptions=True)
        for error in ended:
            if error is not None:
                raise error
        return by_partition.keys() & self._lost.keys()

    async def commit(self, settled: Sequence[Record]) -> None:
        """Do nothing: the next offsets went with the events."""

    def _producer_of(self, partition: TopicPartition) -> Any:
        return AIOKafkaProducer(
            **self._connection.client_options(),
            client_id=f"{self._client_id}-{partition.partition}",
            transactional_id=f"{self._group_id}-{partition.topic}-{partition.partition}",
            # Longer than any transaction of ours, and than the group takes to find that we are dead.
            transaction_timeout_ms=transaction_timeout_ms(self._deadline_s, self._session_timeout_s),
            acks="all",
            max_batch_size=MAX_BATCH_BYTES,
            max_request_size=DEAD_LETTER_MAX_BYTES,
            request_timeout_ms=int(self._deadline_s * 1000),
            retry_backoff_ms=100,
        )

    async def _transact(self, partition: TopicPartition, outcomes: Sequence[Outcome]) -> None:
        if partition in self._lost:
            return
        producer = self._producers[partition]
        offsets = next_offsets([each.record for each in outcomes], owned={partition})
        try:
            async with asyncio.timeout(self._deadline_s):
                await producer.begin_transaction()
                # aiokafka logs the error of a transaction's end that nobody asked for: where it barred us we know already.
                ended = producer._txn_manager.wait_for_transaction_end()
                ended.add_done_callback(_mark_seen)
                await self._fill(producer, [each for outcome in outcomes for each in outcome.outgoing], offsets, ended=ended)
                await producer.commit_transaction()
        except ProducerFenced:
            self._lose(partition)
        except BaseException as error:
            await self._abandon(partition)
            if isinstance(error, KafkaError | TimeoutError):
                raise await self._failure(error, {each.topic for outcome in outcomes for each in outcome.outgoing}) from error
            raise

    async def _fill(
        self,
        producer: Any,
        outgoing: Sequence[OutgoingRecord],
        offsets: dict[TopicPartition, int],
        *,
        ended: "asyncio.Future[Any]",
    ) -> None:
        # Every confirmation is waited for: aiokafka would commit a transaction whose records were refused.
        next_offset = {KafkaTopicPartition(*each): (offset, self._note(each)) for each, offset in offsets.items()}
        adding = asyncio.create_task(producer.send_offsets_to_transaction(next_offset, self._group_id))
        adding.add_done_callback(_mark_seen)
        try:
            await send_and_confirm(producer, outgoing, is_transactional=True)
            await adding
        except IllegalOperation:
            # Barred between two sends: to aiokafka there is no transaction any more. What it ended with tells why.
            if ended.done() and (reason := ended.exception()) is not None:
                raise reason from None
            raise
        finally:
            await asyncio.wait([adding], timeout=0)  # if it has failed too, let it take its error
            adding.cancel()

    def _lose(self, partition: TopicPartition) -> None:
        _log.warning("partition lost: another worker has taken it over", partition=partition.partition)
        self._on_lost()
        loop = asyncio.get_running_loop()
        self._lost[partition] = loop.call_later(self._session_timeout_s, self._on_failure, _fenced_out(partition))

    async def _abandon(self, partition: TopicPartition) -> None:
        producer = self._producers.pop(partition, None)
        if producer is None:
            return
        with suppress(AssertionError, IllegalOperation, KafkaError, TimeoutError):  # none open, or it can't be ended now
            async with asyncio.timeout(_CLOSE_S):
                await producer.abort_transaction()
        await _stop(producer)

    async def _failure(self, error: BaseException, topics: Collection[str] = ()) -> WorkerError:
        if isinstance(error, TransactionalIdAuthorizationFailed):
            return AccessRefusedError(
                f"the broker at {self._connection} does not allow this client: Write on transactional-id {error.args[0]}. "
                f"Allow it for all that begin with {self._group_id}- (docs/security.md has the command)."
            )
        return await publish_failure(self._connection, topics, deadline_s=self._deadline_s, error=error)


def transaction_timeout_ms(deadline_s: float, session_timeout_s: float) -> int:
    """Return after how long a broker ends a transaction by itself: only when its worker is dead and has no successor."""
    return int((deadline_s + session_timeout_s) * 1000)


def _mark_seen(done: "asyncio.Future[Any]") -> None:
    if not done.cancelled():
        done.exception()


async def _stop(producer: Any) -> None:
    with suppress(KafkaError, TimeoutError):
        async with asyncio.timeout(_CLOSE_S):
            await producer.stop()


def _fenced_out(partition: TopicPartition) -> FencedOutError:
    return FencedOutError(
        f"another producer has taken over partition {partition.partition} of {partition.topic}, but the group still gives it "
        "to this worker. Start it again; if that repeats, see that nothing else uses transactional ids that begin with its "
        "RUGO_GROUP_ID."
    )
