"""Bad input on a real Apache Kafka: every record ends labelled or dead-lettered, whatever a producer gets past the broker."""

import asyncio
import json
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from tests.support.stage import Stage
from tests.support.worker_process import wait_until
from worker.core.records import OutgoingRecord
from worker.kafka.record_batches import must_travel_alone, read_any_header_key, send_alone

pytestmark = pytest.mark.broker

LABELLED = "labelled"
CODECS = (None, "gzip", "snappy", "lz4", "zstd")


@pytest.fixture
def partitions() -> int:
    return 1


@dataclass(frozen=True, slots=True)
class Animal:
    """A record as it is produced, and what must become of it."""

    outcome: str
    value: bytes | None
    key: bytes | None = b"zoo"
    headers: tuple[tuple[str, bytes | None], ...] = ()
    timestamp_ms: int | None = None
    codec: str | None = None


def chat(**fields: object) -> bytes:
    return json.dumps({"message_id": "m", "chat_id": "zoo", "text": "спасибо", **fields}).encode()


def chat_with(raw_json: str) -> bytes:
    return f'{{"message_id": "m", "chat_id": "zoo", "text": "спасибо", {raw_json}}}'.encode()


CYRILLIC_KEY = "имя".encode("cp1251").decode("utf-8", "surrogateescape")

ZOO = {
    "plain": Animal(LABELLED, chat()),
    "header key that is not UTF-8": Animal(LABELLED, chat(), headers=((CYRILLIC_KEY, b"\xff"), ("", None))),
    "the same, unreadable": Animal("not_json", b"?", headers=((CYRILLIC_KEY, b"\xff"), ("", None), ("имя", b""))),
    "the same, hollow": Animal("tombstone", None, key=None, headers=((CYRILLIC_KEY, None),)),
    "a thousand headers": Animal("schema", b"[]", headers=(("h", None), ("reply_to", b"x")) * 500),
    "dead letter's own headers": Animal("not_json", b"", headers=(("dlq.reason", b"lie"), ("dlq.offset", b"999"))),
    "key that is not UTF-8": Animal(LABELLED, chat(), key=b"\xff\x00"),
    "30 MB that were compressed to few": Animal("schema", chat(text="ы" * 5_000_000), codec="zstd"),
    "10 MB beside the text": Animal(LABELLED, chat(channel="w" * 10_000_000), codec="lz4"),
    "timestamp before all time": Animal(LABELLED, chat(), timestamp_ms=-(10**15)),
    "no timestamp": Animal("not_json", b"{", timestamp_ms=-1),
    "first moment of the calendar": Animal(LABELLED, chat(sent_at="0001-01-01T00:00:00+14:00")),
    "last moment of the calendar": Animal(LABELLED, chat(sent_at="9999-12-31T23:59:59.999999-14:00")),
    "year 0": Animal("schema", chat(sent_at="0000-01-01T00:00:00Z")),
    "deep arrays": Animal("not_json", b"[" * 500_000),
    "deep objects": Animal("not_json", chat_with('"x": ' + '{"a": ' * 100_000)),
    "endless number": Animal("not_json", chat_with('"x": ' + "9" * 100_000)),
    "NaN": Animal(LABELLED, chat_with('"x": NaN, "y": -Infinity, "z": 1e999')),
    "a field twice": Animal(LABELLED, chat_with('"text": "спасибо ещё"')),
    "lone surrogate": Animal("not_json", chat(chat_id="\ud800")),
    "lone surrogate, encoded": Animal("not_json", b'{"message_id": "m", "chat_id": "\xed\xa0\x80", "text": "x"}'),
    "byte order mark": Animal("not_json", b"\xef\xbb\xbf" + chat()),
    "UTF-16": Animal("not_json", chat().decode().encode("utf-16")),
    "NUL": Animal(LABELLED, chat(text="\0", chat_id="\0", message_id="\0")),
    "combining marks": Animal(LABELLED, chat(text="е" + "\u0301" * 8000)),
    "right to left, zero width": Animal(LABELLED, chat(text="\u202e\u200f שלום \u200b\u200d\ufeff\u2066", chat_id="\u202e")),
    "8192 emoji": Animal(LABELLED, chat(text="🤬" * 8192)),
    "100,000 emoji": Animal("schema", chat(text="🤬" * 100_000)),
    "one word of 8192 letters": Animal(LABELLED, chat(text="ы" * 8192)),
    **{f"codec {codec}": Animal(LABELLED, chat(), codec=codec) for codec in CODECS},
}


async def produce(stage: Stage, animals: Sequence[Animal]) -> None:
    async with AsyncExitStack() as stack:
        servers = stage.bootstrap_servers
        producers = {
            codec: await stack.enter_async_context(
                AIOKafkaProducer(bootstrap_servers=servers, compression_type=codec, max_request_size=50_000_000)
            )
            for codec in CODECS
        }
        for each in animals:
            record = OutgoingRecord(stage.names.input, each.key, each.value, each.headers)
            producer = producers[each.codec]
            if must_travel_alone(record) and each.codec is None:
                await (await send_alone(producer, record, timestamp_ms=each.timestamp_ms))
                continue
            await producer.send_and_wait(
                record.topic, record.value, record.key, headers=list(record.headers), timestamp_ms=each.timestamp_ms
            )


async def read(stage: Stage, topic: str) -> list:
    read_any_header_key()
    partition = TopicPartition(topic, 0)
    consumer = AIOKafkaConsumer(bootstrap_servers=stage.bootstrap_servers, auto_offset_reset="earliest")
    async with consumer, asyncio.timeout(60):
        consumer.assign([partition])
        end = (await consumer.end_offsets([partition]))[partition]
        found = []
        while await consumer.position(partition) < end:
            found += (await consumer.getmany(partition, timeout_ms=200)).get(partition, [])
        return found


def test_a_flood_of_rejects_stops_the_worker_and_the_one_started_after_it(stage):
    """Publish good records and then four windows of broken ones; start workers, one with the check switched off at the end.

    The first worker ends with what to do, having diverted no more than a window; the next one diverts nothing more. Nothing is
    lost: without the check all comes out.
    """
    stage.publish_chats(300)
    for _ in range(4000):
        stage.publish(b"{broken", key=b"k")
    stage.flush()

    def run_one() -> tuple[int, int]:
        worker = stage.start_worker(RUGO_MAX_POLL_RECORDS="100")
        assert worker.wait(60) == 1, worker.log
        assert "of the last 1000 records were rejected" in worker.log
        assert "RUGO_MAX_REJECTED_SHARE=1" in worker.log
        return stage.count_outcomes(), sum(stage.committed().values())

    outcomes, committed = run_one()
    assert 300 < outcomes == committed < 1000
    assert run_one() == (outcomes, committed)
    last = stage.start_worker(RUGO_MAX_REJECTED_SHARE="1")
    wait_until(lambda: stage.count_outcomes() == 4300, 60, what=last.log)


@pytest.mark.parametrize("delivery", ["at_least_once", "exactly_once"])
def test_every_animal_of_the_zoo_is_labelled_or_dead_lettered_and_none_stops_the_worker(stage, delivery):
    """Produce whatever a broker takes: odd headers, keys, timestamps, sizes, codecs, JSON and Unicode.

    Every position has the one outcome that its record deserves, in time; dead letters are the originals byte for byte.
    """
    asyncio.run(produce(stage, list(ZOO.values())))
    worker = stage.start_worker(RUGO_LOG_LEVEL="DEBUG", RUGO_MAX_REJECTED_SHARE="1", RUGO_DELIVERY=delivery)
    wait_until(lambda: stage.committed() == stage.ends() or worker.process.poll() is not None, 60, what="all committed")
    assert worker.process.poll() is None, worker.log
    outcomes: dict[int, list[str]] = {}
    for labelled in asyncio.run(read(stage, stage.names.emotions)):
        outcomes.setdefault(json.loads(labelled.value)["source"]["offset"], []).append(LABELLED)
    for letter in asyncio.run(read(stage, stage.names.dead_letter)):
        added = dict(letter.headers)
        original = list(ZOO.values())[int(added["dlq.offset"])]
        outcomes.setdefault(int(added["dlq.offset"]), []).append(added["dlq.reason"].decode())
        assert (letter.key, letter.value) == (original.key, original.value)
        assert letter.headers[: len(original.headers)] == original.headers
    assert {name: outcomes[offset] for offset, name in enumerate(ZOO)} == {name: [each.outcome] for name, each in ZOO.items()}
    assert "спасибо" not in worker.log
    worker.terminate()
    assert worker.wait() == 0, worker.log
    assert stage.committed() == stage.ends()
