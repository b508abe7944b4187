"""The Kafka that the broker tests run on: it answers, survives what the tests do to it, and says why it is missing."""

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from tests.support.kafka_jars import KafkaUnavailableError
from tests.support.kafka_server import (
    KafkaContainer,
    KafkaServer,
    KafkaStartError,
    NoKafka,
    RunningKafka,
    find_kafka,
    kafka_from_jars,
    kafka_in_container,
    running_kafka,
)
from tests.support.processes import broker_answers, comes_true, free_ports

TOPIC = "kafka-server.records"


async def create_topic(bootstrap_servers: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap_servers)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(name=TOPIC, num_partitions=1, replication_factor=1)])
    finally:
        await admin.close()


async def publish(bootstrap_servers: str, value: bytes) -> None:
    async with AIOKafkaProducer(bootstrap_servers=bootstrap_servers, acks="all") as producer:
        await producer.send_and_wait(TOPIC, value)


async def read(bootstrap_servers: str, count: int) -> list[bytes | None]:
    consumer = AIOKafkaConsumer(TOPIC, bootstrap_servers=bootstrap_servers, auto_offset_reset="earliest")
    async with consumer, asyncio.timeout(60):
        return [(await consumer.getone()).value for _ in range(count)]


@pytest.mark.broker
async def test_a_record_survives_a_round_trip_a_restart_a_kill_and_a_pause(own_kafka: KafkaServer | KafkaContainer) -> None:
    """Publish, shut down and start, kill and start, freeze and thaw; every confirmed record is read back, on one port."""
    bootstrap_servers = own_kafka.bootstrap_servers
    await create_topic(bootstrap_servers)
    await publish(bootstrap_servers, b"first")
    assert await read(bootstrap_servers, 1) == [b"first"]

    await asyncio.to_thread(own_kafka.restart)
    await publish(bootstrap_servers, b"after restart")
    await asyncio.to_thread(own_kafka.kill)
    host, port = bootstrap_servers.split(":")
    assert not broker_answers(host, int(port))
    await asyncio.to_thread(own_kafka.start)
    assert own_kafka.bootstrap_servers == bootstrap_servers
    assert await read(bootstrap_servers, 2) == [b"first", b"after restart"]

    await asyncio.to_thread(own_kafka.pause)
    try:
        assert not broker_answers(host, int(port), timeout_s=0.3)
    finally:
        await asyncio.to_thread(own_kafka.resume)
    await publish(bootstrap_servers, b"after pause")
    assert await read(bootstrap_servers, 3) == [b"first", b"after restart", b"after pause"]


@pytest.mark.broker
async def test_a_topic_that_nobody_created_does_not_appear(own_kafka: KafkaServer | KafkaContainer) -> None:
    """Ask for a topic by name, as a producer does; the broker answers that there is none and creates none."""
    admin = AIOKafkaAdminClient(bootstrap_servers=own_kafka.bootstrap_servers)
    await admin.start()
    try:
        (described,) = await admin.describe_topics(["kafka-server.nobody-made-me"])
        assert described["error_code"] == 3
        assert "kafka-server.nobody-made-me" not in await admin.list_topics()
    finally:
        await admin.close()


@pytest.mark.broker
async def test_transactions_commit(own_kafka: KafkaServer | KafkaContainer) -> None:
    """Commit one transaction and abort another; a read_committed consumer sees the first alone."""
    topic = "kafka-server.transactions"
    admin = AIOKafkaAdminClient(bootstrap_servers=own_kafka.bootstrap_servers)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(name=topic, num_partitions=1, replication_factor=1)])
    finally:
        await admin.close()
    async with AIOKafkaProducer(bootstrap_servers=own_kafka.bootstrap_servers, transactional_id="kafka-server") as producer:
        await producer.begin_transaction()
        await producer.send_and_wait(topic, b"aborted")
        await producer.abort_transaction()
        async with producer.transaction():
            await producer.send_and_wait(topic, b"committed")
    consumer = AIOKafkaConsumer(
        topic, bootstrap_servers=own_kafka.bootstrap_servers, auto_offset_reset="earliest", isolation_level="read_committed"
    )
    async with consumer, asyncio.timeout(60):
        assert (await consumer.getone()).value == b"committed"


@pytest.mark.broker
def test_a_server_that_cannot_start_says_why(own_kafka: KafkaServer | KafkaContainer) -> None:
    """Give a second server a setting that Kafka refuses; the error carries the reason and nothing stays behind."""
    if not isinstance(own_kafka, KafkaServer):
        pytest.skip("settings are handed to a Kafka from jars only")
    refused = kafka_from_jars(settings={"num.io.threads": "none"})
    try:
        with pytest.raises(KafkaStartError, match=r"num\.io\.threads"):
            refused.start()
    finally:
        refused.stop()


def test_a_guard_acts_when_its_session_is_killed(tmp_path: Path) -> None:
    """Kill -9 a process that holds a guard; the guard's command runs."""
    mark = tmp_path / "ran"
    holder = subprocess.Popen(
        [sys.executable, "-c", GUARDED, str(mark)],
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"guarded\n"
    assert not mark.exists()
    holder.kill()
    holder.wait()
    holder.stdout.close()
    assert comes_true(mark.exists, deadline_s=10)


GUARDED = """
import sys, time
from tests.support.processes import start_guard
start_guard(["touch", sys.argv[1]])
print("guarded", flush=True)
time.sleep(600)
"""


def test_the_reason_names_the_three_ways() -> None:
    def nothing_installed(_: str) -> None:
        return None

    kafka = find_kafka(
        [
            lambda: running_kafka({}),
            lambda: kafka_from_jars(nothing_installed),
            lambda: kafka_in_container(nothing_installed),
        ]
    )
    assert isinstance(kafka, NoKafka)
    for way in ("KAFKA_BOOTSTRAP_SERVERS", "Java 17+ and Maven", "Docker"):
        assert way in kafka.reason


def test_the_first_way_that_is_open_is_taken() -> None:
    def closed() -> RunningKafka:
        raise KafkaUnavailableError("closed")

    kafka = find_kafka([closed, lambda: running_kafka({"KAFKA_BOOTSTRAP_SERVERS": "broker:9092"}), closed])
    assert isinstance(kafka, RunningKafka)
    assert kafka.bootstrap_servers == "broker:9092"


def test_a_named_kafka_that_does_not_answer_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.support.kafka_server.READY_DEADLINE_S", 0.0)
    (port,) = free_ports(1)
    with pytest.raises(KafkaStartError, match="unset the variable"):
        RunningKafka(f"127.0.0.1:{port}").start()


def test_the_container_publishes_its_port_on_loopback_only() -> None:
    container = KafkaContainer()
    port = container.bootstrap_servers.split(":")[1]
    arguments = container.run_arguments()
    assert arguments[arguments.index("-p") + 1] == f"127.0.0.1:{port}:{port}"
    assert f"KAFKA_ADVERTISED_LISTENERS=PLAINTEXT://127.0.0.1:{port}" in arguments
