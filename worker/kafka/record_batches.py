"""Records between aiokafka and us, also those that it alone can't read or write: with odd header keys, big ones, hollow ones.

C clients write a header's key as the bytes they were given. aiokafka raises on such a key in the middle of a poll, each time
anew: its partition would stand still for good. Here a key's odd bytes become lone surrogates (`surrogateescape`) and go back
as they were.
"""

import asyncio
from collections.abc import Iterator
from itertools import islice
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.consumer import fetcher
from aiokafka.errors import CorruptRecordException
from aiokafka.partitioner import DefaultPartitioner
from aiokafka.producer.message_accumulator import BatchBuilder
from aiokafka.record.default_records import _DefaultRecordBatchBuilderPy, _DefaultRecordBatchPy
from aiokafka.record.memory_records import MemoryRecords

from worker.core.records import OutgoingRecord, Record

_LENGTH_AT, _LENGTH_END = 8, 12  # where a batch says how many bytes follow
_BIG_BYTES = 1_000_000  # a topic takes a little more than this where nobody has set its max.message.bytes
_UNBOUNDED = 2**31 - 1


def read_any_header_key() -> None:
    """Make every aiokafka consumer of this process read header keys that are not UTF-8."""
    fetcher.MemoryRecords = _TolerantRecords


def record_of(raw: Any) -> Record:
    """Return what aiokafka read, as a record of ours."""
    return Record(
        topic=raw.topic,
        partition=raw.partition,
        offset=raw.offset,
        timestamp_ms=raw.timestamp,
        key=raw.key,
        value=raw.value,
        headers=tuple(raw.headers),
    )


def must_travel_alone(outgoing: OutgoingRecord) -> bool:
    """Return whether `AIOKafkaProducer.send` would fail on this record, so that `send_alone` must take it."""
    if outgoing.key is None and outgoing.value is None:
        return True
    size = len(outgoing.key or b"") + len(outgoing.value or b"")
    size += sum(len(name) + len(value or b"") for name, value in outgoing.headers)
    return size > _BIG_BYTES or any("\udc80" <= char <= "\udcff" for name, _ in outgoing.headers for char in name)


async def send_alone(
    producer: AIOKafkaProducer, outgoing: OutgoingRecord, *, timestamp_ms: int | None = None, is_transactional: bool = False
) -> "asyncio.Future[Any]":
    """Send a record as a batch of its own, compressed: one that a producer's compression let in must get out again.

    Without a partition of its own the key decides, as it does for `send`. `timestamp_ms` None is now.
    """
    partitions = sorted(await producer.partitions_for(outgoing.topic))
    batch = _TolerantBatchBuilder(is_transactional=is_transactional)
    headers = [(_HeaderKey(name), value) for name, value in outgoing.headers]
    batch.append(timestamp=timestamp_ms, key=outgoing.key, value=outgoing.value, headers=headers)
    batch.close()
    if outgoing.partition is None:
        partition = DefaultPartitioner()(outgoing.key, partitions, partitions)
    else:
        partition = outgoing.partition % len(partitions)
    sent: asyncio.Future[Any] = await producer.send_batch(batch, outgoing.topic, partition=partition)
    return sent


class _TolerantRecords:
    """aiokafka's reader of what a fetch brought, with the bytes of each batch at hand for when a header key is odd."""

    def __init__(self, fetched: bytes) -> None:
        self._records = MemoryRecords(fetched)
        self._fetched = memoryview(fetched)
        self._position = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._records, name)

    def next_batch(self) -> Any:
        start = self._position
        self._position = start + _LENGTH_END + int.from_bytes(self._fetched[start + _LENGTH_AT : start + _LENGTH_END], "big")
        batch = self._records.next_batch()
        return batch if batch is None else _TolerantBatch(batch, self._fetched[start : self._position])


class _TolerantBatch:
    """A batch, read by aiokafka's fast reader and, from the first odd header key on, by its slow one."""

    def __init__(self, batch: Any, raw: memoryview) -> None:
        self._batch = batch
        self._raw = raw

    def __getattr__(self, name: str) -> Any:
        return getattr(self._batch, name)

    def __next__(self) -> Any:
        return next(self._batch)

    def __iter__(self) -> Iterator[Any]:
        taken = 0
        try:
            for record in self._batch:
                taken += 1
                yield record
        except (UnicodeDecodeError, CorruptRecordException):
            yield from islice(_SlowBatch(self._raw), taken, None)


class _SlowBatch(_DefaultRecordBatchPy):
    """aiokafka's reader in Python, whose header keys are decoded by the buffer that they are cut from."""

    def _maybe_uncompress(self) -> None:
        super()._maybe_uncompress()
        self._buffer: bytearray = _Buffer(self._buffer)


class _Buffer(bytearray):
    def __getitem__(self, where: Any) -> Any:
        found = super().__getitem__(where)
        return _Buffer(found) if isinstance(where, slice) else found

    def decode(self, encoding: str = "utf-8", errors: str = "surrogateescape") -> str:
        return super().decode(encoding, errors)


class _HeaderKey(str):
    __slots__ = ()

    def encode(self, encoding: str = "utf-8", errors: str = "surrogateescape") -> bytes:
        return super().encode(encoding, errors)


class _TolerantBatchBuilder(BatchBuilder):
    """aiokafka's batch of a producer, written by its writer in Python: the fast one takes no keys of our own making."""

    def __init__(self, *, is_transactional: bool) -> None:
        codec = _DefaultRecordBatchPy.CODEC_ZSTD
        super().__init__(_UNBOUNDED, codec, is_transactional=int(is_transactional))
        self._builder = _DefaultRecordBatchBuilderPy(
            2, codec, int(is_transactional), producer_id=-1, producer_epoch=-1, base_sequence=0, batch_size=_UNBOUNDED
        )

    def _set_producer_state(self, producer_id: int, producer_epoch: int, base_sequence: int) -> None:
        self._builder.set_producer_state(producer_id, producer_epoch, base_sequence)
